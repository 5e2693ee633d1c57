"""The test suite."""

# jaxtyping, which `make shapes` tells to check with `tests.shapes.check`, imports `tests` alone.
from tests import shapes as shapes
