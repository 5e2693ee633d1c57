"""Training a supernet in two stages: selection by OrthoSoftmax, then sandwich fine-tuning."""
