"""What `python -m bench.bench_prediction` builds, measures and compares with predictions."""
