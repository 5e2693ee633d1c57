"""Compacted subnets as artefacts: ExecuTorch programs and ONNX models, and their checks.

Importing the package imports neither runtime; the functions that need one do.
"""
