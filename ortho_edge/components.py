"""The component space: all components of an architecture in a fixed order, with their costs.

Order (paper, section 2): per block the chunks of the first FFN, the convolution module, the heads,
the chunks of the second FFN; where the front end is elastic, its chunks but the first stand at the
end. Costs are parameters, or FLOPs of a reference utterance; both count what the compacted encoder
really holds and runs, so `cost` of a subnet is exact.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np

from ortho_edge.conformer.architecture import Architecture, subsampled_length
from ortho_edge.subnet import Subnet

Module = Literal["ffn1", "conv", "mhsa", "ffn2", "front_end"]
Place = tuple[int | None, Module]
"""A module by its block and name; the front end stands in none."""
Criterion = Literal["params", "flops"]
Granularity = Literal["component", "layer"]

MODULES: tuple[Module, ...] = ("ffn1", "conv", "mhsa", "ffn2")
"""Those of a block."""
FRONT_END: Place = (None, "front_end")

REFERENCE_SECONDS = 4.0
"""FLOPs are those of an utterance of this length; attention's share grows with it."""
FRAMES_PER_SECOND = 100


@dataclass(frozen=True)
class Component:
    """The smallest unit that a subnet keeps or drops."""

    block: int | None
    """None for the front end."""
    module: Module
    unit: int
    """Which chunk or head of the module; 0 for the convolution. The front end's first chunk is no
    component, so unit 0 is its second chunk."""


@dataclass(frozen=True)
class ModuleUnits:
    """The open units of one module of one block, or of the front end."""

    block: int | None
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
            for block, module in self.places
            for unit in range(self.num_units(module))
        )

    def __len__(self) -> int:
        """N, the number of components."""
        return self.architecture.num_blocks * self.per_block + self.num_units("front_end")

    @property
    def per_block(self) -> int:
        """Components in one block."""
        return sum(self.num_units(name) for name in MODULES)

    @property
    def kinds(self) -> tuple[Module, ...]:
        """Modules that have components: those of a block, and the front end if it is elastic."""
        return (*MODULES, "front_end") if self.num_units("front_end") else MODULES

    @cached_property
    def places(self) -> tuple[Place, ...]:
        """Every module that has components, in the order of the gate vector."""
        blocks = range(self.architecture.num_blocks)
        in_blocks: tuple[Place, ...] = tuple((one, module) for one in blocks for module in MODULES)
        return (*in_blocks, FRONT_END) if self.num_units("front_end") else in_blocks

    def num_units(self, module: Module) -> int:
        """Components in one module."""
        if module == "conv":
            return 1
        architecture = self.architecture
        if module == "front_end":
            return architecture.front_end_chunks - 1
        return architecture.num_heads if module == "mhsa" else architecture.num_ffn_chunks

    def module_slice(self, block: int | None, module: Module) -> slice:
        """Where the components of one module stand in the gate vector."""
        if block is None or module == "front_end":
            return slice(len(self) - self.num_units(module), len(self))
        start = block * self.per_block
        for name in MODULES:
            if name == module:
                break
            start += self.num_units(name)
        return slice(start, start + self.num_units(module))

    def modules(self, subnet: Subnet) -> Iterator[ModuleUnits]:
        """Every module of `places` with its open units, empty ones included."""
        for block, module in self.places:
            place = self.module_slice(block, module)
            units = tuple(
                unit for unit, index in enumerate(range(place.start, place.stop)) if index in subnet
            )
            yield ModuleUnits(block, module, units)

    def front_end_chunks(self, subnet: Subnet) -> tuple[int, ...]:
        """The chunks of the front end that a subnet has, the first always among them."""
        place = self.module_slice(*FRONT_END)
        optional = range(place.start, place.stop)
        return (0, *(chunk for chunk, index in enumerate(optional, 1) if index in subnet))

    def groups(self, granularity: Granularity) -> tuple[tuple[int, ...], ...]:
        """What is selected as one: single components, or all components of a module."""
        if granularity == "component":
            return tuple((index,) for index in range(len(self)))
        if granularity == "layer":
            return tuple(
                tuple(range(place.start, place.stop))
                for place in (self.module_slice(*one) for one in self.places)
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
        smallest = self.architecture.with_front_end_of(1)
        total = _front_end_flops(smallest, frames) + _head_flops(self.architecture, steps)
        for module in self.modules(subnet):
            total += len(module.units) * _unit_flops(self.architecture, module.module, frames)
        return total

    def _unit_cost(self, module: Module, criterion: Criterion) -> float:
        if criterion == "params":
            return float(_unit_params(self.architecture, module))
        if criterion == "flops":
            return _unit_flops(self.architecture, module, _reference_frames())
        raise ValueError(f"unknown criterion {criterion!r}; known: params, flops")

    def _module_overhead(self, module: Module, criterion: Criterion) -> float:
        if criterion == "flops" or module == "front_end":
            return 0.0
        # The LayerNorm before the module, and the output bias that FFN and attention share.
        return (2.0 if module == "conv" else 3.0) * self.architecture.dim

    def _fixed_cost(self, criterion: Criterion) -> float:
        architecture = self.architecture
        if criterion == "params":
            norms = architecture.num_blocks * 2 * architecture.dim
            head = (architecture.dim + 1) * architecture.vocab_size
            return float(_front_end_params(architecture.with_front_end_of(1)) + norms + head)
        if criterion == "flops":
            frames = _reference_frames()
            head = _head_flops(architecture, subsampled_length(frames))
            return _front_end_flops(architecture.with_front_end_of(1), frames) + head
        raise ValueError(f"unknown criterion {criterion!r}; known: params, flops")


def num_params(architecture: Architecture, num_ctc_heads: int = 1) -> int:
    """Parameters of a supernet, by arithmetic alone: sizes out of all bounds cost nothing."""
    dim = architecture.dim
    units: dict[Module, int] = {
        "ffn1": architecture.num_ffn_chunks,
        "conv": 1,
        "mhsa": architecture.num_heads,
        "ffn2": architecture.num_ffn_chunks,
    }
    block = 2 * dim + sum(
        count * _unit_params(architecture, module) + (2 if module == "conv" else 3) * dim
        for module, count in units.items()
    )
    heads = num_ctc_heads * (dim + 1) * architecture.vocab_size
    return _front_end_params(architecture) + architecture.num_blocks * block + heads


def _reference_frames() -> int:
    return round(REFERENCE_SECONDS * FRAMES_PER_SECOND)


def _unit_params(architecture: Architecture, module: Module) -> int:
    dim = architecture.dim
    if module == "front_end":
        # The last convolution and the linear layer are what a chunk is a part of.
        return _front_end_params(architecture.with_front_end_of(2)) - _front_end_params(
            architecture.with_front_end_of(1)
        )
    if module == "conv":
        pointwise = 2 * dim * dim + 2 * dim + dim * dim + dim
        depthwise = dim * architecture.kernel_size + dim
        return pointwise + depthwise + 2 * dim
    if module == "mhsa":
        return architecture.head_dim * (4 * dim + 3)
    return architecture.chunk_dim * (2 * dim + 1)


def _unit_flops(architecture: Architecture, module: Module, frames: int) -> float:
    dim, steps = architecture.dim, subsampled_length(frames)
    if module == "front_end":
        return _front_end_flops(architecture.with_front_end_of(2), frames) - _front_end_flops(
            architecture.with_front_end_of(1), frames
        )
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
