"""What each operation launches in a training step, on meta tensors; see `compile_only`."""
