"""Soft choice of components by near-orthogonal softmaxes."""
