"""Compacted subnets as artefacts: ExecuTorch programs and ONNX models, and their checks.

Importing the package imports neither runtime; the functions that need one do.
"""

import os

# ONNX Runtime's Linux wheels report what they run to their makers unless they are told not to
# before they are loaded. Whoever wants that sets the variable to 0.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
