"""A subnet: which components of a component space are kept. A value, never state on a module."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor


@dataclass(frozen=True)
class Subnet:
    """A frozen, hashable set of kept components.

    Attributes:
        num_components: N, the size of the component space.
        kept: Indices of the kept components, ascending and distinct.
    """

    num_components: int
    kept: tuple[int, ...]

    def __post_init__(self) -> None:
        """Raises ValueError when `kept` is not ascending, distinct and inside the space."""
        if list(self.kept) != sorted(set(self.kept)):
            raise ValueError(f"kept must be ascending and distinct, not {self.kept}")
        if self.kept and not (self.kept[0] >= 0 and self.kept[-1] < self.num_components):
            raise ValueError(f"kept {self.kept} is outside 0..{self.num_components - 1}")

    @classmethod
    def of(cls, num_components: int, kept: Iterable[int]) -> "Subnet":
        """The subnet that keeps the components `kept`, in any order."""
        return cls(num_components, tuple(sorted(set(kept))))

    @classmethod
    def full(cls, num_components: int) -> "Subnet":
        """The subnet that keeps everything: the supernet itself."""
        return cls(num_components, tuple(range(num_components)))

    @cached_property
    def _members(self) -> frozenset[int]:
        return frozenset(self.kept)

    def __contains__(self, component: int) -> bool:
        """Whether the component of that index is kept."""
        return component in self._members

    def __le__(self, other: "Subnet") -> bool:
        """Whether every kept component is kept by `other` too (nesting)."""
        return self.num_components == other.num_components and set(self.kept) <= set(other.kept)

    def gates(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """Hard gates (N,): 1 where kept, 0 where dropped."""
        gates = torch.zeros(self.num_components, dtype=dtype)
        gates[list(self.kept)] = 1
        return gates


def stack_gates(subnets: Sequence[Subnet], dtype: torch.dtype = torch.float32) -> Tensor:
    """Hard gates (S, N) of several subnets."""
    return torch.stack([subnet.gates(dtype) for subnet in subnets])
