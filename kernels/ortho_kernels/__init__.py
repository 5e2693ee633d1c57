"""Gated Conformer operations, one folder each; `reference.py` is plain torch.

Stacked tensors carry a leading axis S, one entry per subnet. `open_units[s]` lists, on the host,
the units whose gate is not 0 in subnet s: only those are computed, the others cost nothing and
receive a gradient of exactly 0. Letters: S subnets, B batch, T frames, D model width, H heads,
C chunks.
"""
