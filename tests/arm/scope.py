"""How much runs: everything in `make test-arm`, else one size on one core."""

import os

from ortho_edge.checkpoint import load_checkpoint, shipped_checkpoint
from ortho_edge.precision import PRECISIONS, Precision

ALL = os.environ.get("ORTHO_EDGE_ARM") == "all"
_SIZES = [one.name for one in load_checkpoint(shipped_checkpoint()).subnets]
SIZES = _SIZES if ALL else _SIZES[-1:]
QUANTISED: list[Precision] = [one for one in PRECISIONS if one != "fp32"] if ALL else ["int8"]
CORES = ["cortex-a53", "cortex-a76", "max"] if ALL else ["cortex-a76"]
