"""The component space: all components of an architecture in a fixed order, with their costs.

Order (paper, section 2): per block the chunks of the first FFN, the convolution module, the heads,
the chunks of the second FFN. Costs are parameters, or FLOPs of a reference utterance; both count
what the compacted encoder really holds and runs, so `cost` of a subnet is exact.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np

from ortho_edge.conformer.architecture import Architecture, subsampled_length
from ortho_edge.subnet import Subnet

Module = Literal["ffn1", "conv", "mhsa", "ffn2"]
Criterion = Literal["params", "flops"]
Granularity = Literal["component", "layer"]

MODULES: tuple[Module, ...] = ("ffn1", "conv", "mhsa", "ffn2")

REFERENCE_SECONDS = 4.0
"""FLOPs are those of an utterance of this length; attention's share grows with it."""
FRAMES_PER_SECOND = 100


@dataclass(frozen=True)
class Component:
    """The smallest unit that a subnet keeps or drops."""

    block: int
    module: Module
    unit: int
    """Which chunk or head of the module; 0 for the convolution."""


@dataclass(frozen=True)
class ModuleUnits:
    """The open units of one module of one block, with the module's place in the gate vector."""

    block: int
    module: Module
    units: tuple[int, ...]


@dataclass(frozen=True)
class ComponentSpace:
    """Components and costs of an architecture."""

    architecture: Architecture

    @cached_property
    def components(self) -> tuple[Component, ...]:
        """All components, in the order of the gate vector."""
        return tuple(
            Component(block, module, unit)
            for block in range(self.architecture.num_blocks)
            for module in MODULES
            for unit in range(self.num_units(module))
        )

    def __len__(self) -> int:
        """N, the number of components."""
        return self.architecture.num_blocks * sum(self.num_units(module) for module in MODULES)

    def num_units(self, module: Module) -> int:
        """Components in one module."""
        if module == "conv":
            return 1
        architecture = self.architecture
        return architecture.num_heads if module == "mhsa" else architecture.num_ffn_chunks

    def module_slice(self, block: int, module: Module) -> slice:
        """Where the components of one module stand in the gate vector."""
        per_block = sum(self.num_units(name) for name in MODULES)
        start = block * per_block
        for name in MODULES:
            if name == module:
                break
            start += self.num_units(name)
        return slice(start, start + self.num_units(module))

    def modules(self, subnet: Subnet) -> Iterator[ModuleUnits]:
        """Every module of every block with its open units, empty ones included."""
        for block in range(self.architecture.num_blocks):
            for module in MODULES:
                place = self.module_slice(block, module)
                units = tuple(
                    unit
                    for unit, index in enumerate(range(place.start, place.stop))
                    if index in subnet
                )
                yield ModuleUnits(block, module, units)

    def groups(self, granularity: Granularity) -> tuple[tuple[int, ...], ...]:
        """What is selected as one: single components, or all components of a module."""
        if granularity == "component":
            return tuple((index,) for index in range(len(self)))
        if granularity == "layer":
            return tuple(
                tuple(range(place.start, place.stop))
                for block in range(self.architecture.num_blocks)
                for place in (self.module_slice(block, module) for module in MODULES)
            )
        raise ValueError(f"unknown granularity {granularity!r}; known: component, layer")

    def full(self) -> Subnet:
        """The subnet that keeps everything."""
        return Subnet.full(len(self))

    def component_costs(self, criterion: Criterion) -> np.ndarray:
        """Cost (N,) that each component adds to a module which is already open."""
        return np.array(
            [self._unit_cost(component.module, criterion) for component in self.components],
            dtype=np.float64,
        )

    def cost(self, subnet: Subnet, criterion: Criterion) -> float:
        """Exact cost of the compacted subnet: a module without open units costs nothing."""
        total = self._fixed_cost(criterion)
        for module in self.modules(subnet):
            if module.units:
                total += self._module_overhead(module.module, criterion)
                total += len(module.units) * self._unit_cost(module.module, criterion)
        return total

    def total_cost(self, criterion: Criterion) -> float:
        """Cost of the full network."""
        return self.cost(self.full(), criterion)

    def flops(self, subnet: Subnet, seconds: float) -> float:
        """FLOPs (two per multiply-accumulate) of the subnet for `seconds` of audio."""
        frames = round(seconds * FRAMES_PER_SECOND)
        steps = subsampled_length(frames)
        total = _front_end_flops(self.architecture, frames) + _head_flops(self.architecture, steps)
        for module in self.modules(subnet):
            total += len(module.units) * _unit_flops(self.architecture, module.module, steps)
        return total

    def _unit_cost(self, module: Module, criterion: Criterion) -> float:
        if criterion == "params":
            return float(_unit_params(self.architecture, module))
        if criterion == "flops":
            return _unit_flops(self.architecture, module, _reference_steps())
        raise ValueError(f"unknown criterion {criterion!r}; known: params, flops")

    def _module_overhead(self, module: Module, criterion: Criterion) -> float:
        if criterion == "flops":
            return 0.0
        # The LayerNorm before the module, and the output bias that FFN and attention share.
        return (2.0 if module == "conv" else 3.0) * self.architecture.dim

    def _fixed_cost(self, criterion: Criterion) -> float:
        architecture = self.architecture
        if criterion == "params":
            norms = architecture.num_blocks * 2 * architecture.dim
            head = (architecture.dim + 1) * architecture.vocab_size
            return float(_front_end_params(architecture) + norms + head)
        if criterion == "flops":
            frames = round(REFERENCE_SECONDS * FRAMES_PER_SECOND)
            steps = subsampled_length(frames)
            return _front_end_flops(architecture, frames) + _head_flops(architecture, steps)
        raise ValueError(f"unknown criterion {criterion!r}; known: params, flops")


def _reference_steps() -> int:
    return subsampled_length(round(REFERENCE_SECONDS * FRAMES_PER_SECOND))


def _unit_params(architecture: Architecture, module: Module) -> int:
    dim = architecture.dim
    if module == "conv":
        pointwise = 2 * dim * dim + 2 * dim + dim * dim + dim
        depthwise = dim * architecture.kernel_size + dim
        return pointwise + depthwise + 2 * dim
    if module == "mhsa":
        return architecture.head_dim * (4 * dim + 3)
    return architecture.chunk_dim * (2 * dim + 1)


def _unit_flops(architecture: Architecture, module: Module, steps: int) -> float:
    dim = architecture.dim
    if module == "conv":
        per_step = 3 * dim * dim + dim * architecture.kernel_size
    elif module == "mhsa":
        # Four projections, then scores and the weighted sum over all `steps` keys.
        per_step = architecture.head_dim * (4 * dim + 2 * steps)
    else:
        per_step = 2 * architecture.chunk_dim * dim
    return 2.0 * steps * per_step


def _front_end_convolutions(architecture: Architecture) -> list[tuple[int, int, int]]:
    """(input channels, output channels, total stride in each direction) of the 3x3 convolutions."""
    channels = (1, *architecture.front_end_channels)
    return [(channels[index], channels[index + 1], index) for index in range(len(channels) - 1)]


def _front_end_params(architecture: Architecture) -> int:
    convolutions = sum(
        9 * inputs * outputs + outputs
        for inputs, outputs, _ in _front_end_convolutions(architecture)
    )
    features = architecture.front_end_channels[-1] * architecture.subsampled_feature_dim
    return convolutions + features * architecture.dim + architecture.dim


def _front_end_flops(architecture: Architecture, frames: int) -> float:
    steps = subsampled_length(frames)
    half = (frames + 1) // 2
    if architecture.front_end == "vgg":
        # Convolutions keep the size; time is halved by the poolings after the second and fourth.
        positions = [size * architecture.feature_dim for size in (frames, frames, half, half)]
    else:
        half_bins = (architecture.feature_dim + 1) // 2
        positions = [half * half_bins, steps * architecture.subsampled_feature_dim]
    macs = sum(
        9 * inputs * outputs * positions[index]
        for inputs, outputs, index in _front_end_convolutions(architecture)
    )
    features = architecture.front_end_channels[-1] * architecture.subsampled_feature_dim
    return 2.0 * (macs + steps * features * architecture.dim)


def _head_flops(architecture: Architecture, steps: int) -> float:
    return 2.0 * steps * architecture.dim * architecture.vocab_size
