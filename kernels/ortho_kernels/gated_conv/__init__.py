"""Convolution module with one gate."""
