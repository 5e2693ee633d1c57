"""What `python bench/gpu.py` measures: correctness, times, training steps, tuned launches."""
