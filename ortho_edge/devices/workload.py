"""What each module of a subnet computes and touches: the quantities that a profile prices.

FLOPs and parameters are those of the component space. Activations are the elements of the tensors
that a module writes, elementwise operations counted where runtimes keep them apart; they price
memory traffic, and a fit absorbs what a runtime fuses. What counts how often was chosen by exact
instruction counts, in which a module's own norm, folded into its layers, hardly shows.
"""

from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import pairwise

from ortho_edge.components import FRAMES_PER_SECOND, FRONT_END, ComponentSpace
from ortho_edge.components import Module as ModuleName
from ortho_edge.conformer.architecture import Architecture, subsampled_length
from ortho_edge.devices.profile import Kind
from ortho_edge.subnet import Subnet

BYTES = 4
"""Of an fp32 number."""
LONGEST_SECONDS = 30.0
"""Of what an artefact takes, unless its budget is for longer audio."""
KIND_OF: dict[ModuleName, Kind] = {"ffn1": "ffn", "conv": "conv", "mhsa": "mhsa", "ffn2": "ffn"}


@dataclass(frozen=True, kw_only=True)
class Work:
    """The work of one module for one utterance."""

    kind: Kind
    flops: float
    params: float
    activations: float
    """Elements that the module writes."""
    live: float
    """Elements that must be held at its fullest moment, the residual stream included."""
    weights: float = 0.0
    """Those parameters that are weights of linear layers: what quantisation shrinks."""
    outputs: float = 0.0
    """Outputs of those layers; each has a scale of its own when it is quantised."""
    layers: int = 0
    """Linear layers, as they are exported."""
    units: int = 1
    """Open units: chunks, heads, chunks of the front end, or 1."""
    filters: float = 0.0
    """Those parameters that are weights of convolutions."""


@lru_cache(maxsize=4096)
def workload(space: ComponentSpace, subnet: Subnet, seconds: float) -> tuple[Work, ...]:
    """The modules of a subnet in the order in which they run, for `seconds` of audio.

    The sums of `flops` and `params` are `space.flops(subnet, seconds)` and `space.cost(subnet,
    "params")`.
    """
    architecture = space.architecture
    steps = subsampled_length(round(seconds * FRAMES_PER_SECOND))
    fixed = _fixed(space, seconds)
    front_end = _front_end(space, len(space.front_end_chunks(subnet)), seconds)
    empty = Subnet.of(len(space), ())
    units = {module: _unit(space, module, empty, seconds) for module in KIND_OF}
    works = [front_end]
    block = 0
    for module in space.modules(subnet):
        if module.block is None:
            continue
        if module.block != block:
            works.append(fixed["norm"])
            block = module.block
        if module.units:
            works.append(
                _module(architecture, module.module, len(module.units), steps, units[module.module])
            )
    return (*works, fixed["norm"], fixed["ctc_head"])


def planned_elements(architecture: Architecture, seconds: float = LONGEST_SECONDS) -> int:
    """Elements that a runtime plans memory for ahead, for the longest features, in every subnet.

    The network is one piece and keeps its own memory. Outside stand the features, the logits that
    come out of the piece, and the log-probabilities.
    """
    frames = round(seconds * FRAMES_PER_SECOND)
    features = frames * architecture.feature_dim
    logits = subsampled_length(frames) * architecture.vocab_size
    return logits + max(features, logits)


def in_tiles(works: tuple[Work, ...], seconds: float, rows: int) -> tuple[Work, ...]:
    """The same modules on kernels that compute so many rows of a matrix product at once.

    A linear layer has one row per encoder frame; it costs as much as the next multiple of `rows`.
    """
    if rows == 1:
        return works
    steps = subsampled_length(round(seconds * FRAMES_PER_SECOND))
    idle = -steps % rows
    return tuple(replace(work, flops=work.flops + 2 * idle * work.weights) for work in works)


@lru_cache(maxsize=256)
def _unit(
    space: ComponentSpace, module: ModuleName, empty: Subnet, seconds: float
) -> tuple[float, float, float]:
    """FLOPs per unit, parameters per unit, parameters of an open module besides its units."""
    first = space.module_slice(0, module).start
    one = Subnet.of(len(space), (first,))
    flops = space.flops(one, seconds) - space.flops(empty, seconds)
    params = float(space.component_costs("params")[first])
    overhead = space.cost(one, "params") - space.cost(empty, "params") - params
    return flops, params, overhead


def _module(
    architecture: Architecture,
    module: ModuleName,
    num_units: int,
    steps: int,
    unit: tuple[float, float, float],
) -> Work:
    dim = architecture.dim
    flops, params, overhead = unit
    filters = 0
    if module == "conv":
        # Norm, two halves and their product, depthwise, norm, output, residual.
        widths, live = 8 * dim, 5 * dim
        weights, outputs, layers = 3 * dim * dim, 3 * dim, 3
        filters = architecture.kernel_size * dim
    elif module == "mhsa":
        width, scores = num_units * architecture.head_dim, num_units * steps
        # Query, key, value, scores, softmax, weighted sum, output, residual. Less what a single
        # head saves, the three of four transpositions around it; so costs stay linear in heads.
        single = 3 * architecture.head_dim
        widths, live = 2 * dim + 4 * width + 2 * scores - single, dim + 3 * width + 2 * scores
        weights, outputs, layers = 4 * dim * width, 3 * width + dim, 4
    else:
        hidden = num_units * architecture.chunk_dim
        # Hidden, its activation, for a SiLU takes as long as three; output, residual.
        widths, live = 2 * dim + 4 * hidden, 2 * dim + 2 * hidden
        weights, outputs, layers = 2 * dim * hidden, hidden + dim, 2
    return Work(
        kind=KIND_OF[module],
        flops=num_units * flops,
        params=overhead + num_units * params,
        activations=float(steps * widths),
        live=float(steps * live),
        weights=float(weights),
        outputs=float(outputs),
        layers=layers,
        units=num_units,
        filters=float(filters),
    )


def _fixed(space: ComponentSpace, seconds: float) -> dict[Kind, Work]:
    """One block's norm and the CTC head, which every subnet has."""
    architecture = space.architecture
    dim, vocab = architecture.dim, architecture.vocab_size
    steps = subsampled_length(round(seconds * FRAMES_PER_SECOND))
    return {
        "norm": Work(
            kind="norm", flops=0.0, params=2.0 * dim,
            activations=float(steps * dim), live=2.0 * steps * dim,
        ),
        "ctc_head": Work(
            kind="ctc_head", flops=2.0 * steps * dim * vocab, params=(dim + 1.0) * vocab,
            activations=2.0 * steps * vocab, live=float(steps * (dim + 2 * vocab)),
            weights=float(dim * vocab), outputs=float(vocab), layers=1,
        ),
    }  # fmt: skip


def _front_end(space: ComponentSpace, chunks: int, seconds: float) -> Work:
    """The front end with so many chunks."""
    fixed = _fixed(space, seconds)
    frames = round(seconds * FRAMES_PER_SECOND)
    first = space.module_slice(*FRONT_END).start
    alone = Subnet.of(len(space), range(first, first + chunks - 1))
    norms = space.architecture.num_blocks * fixed["norm"].params
    architecture = space.architecture.with_front_end_of(chunks)
    channels, dim = architecture.front_end_channels, architecture.dim
    maps = _front_end_maps(architecture, frames)
    written = frames * architecture.feature_dim + sum(maps) + subsampled_length(frames) * dim
    return Work(
        kind="front_end",
        flops=space.flops(alone, seconds) - fixed["ctc_head"].flops,
        params=space.cost(alone, "params") - fixed["ctc_head"].params - norms,
        activations=float(written),
        live=float(max(map(sum, pairwise(maps)))),
        weights=float(dim * channels[-1] * architecture.subsampled_feature_dim),
        outputs=float(dim),
        layers=1,
        units=chunks,
        filters=9.0 * sum(a * b for a, b in pairwise((1, *channels))),
    )


def _front_end_maps(architecture: Architecture, frames: int) -> list[int]:
    """Elements of the features and of every feature map of the front end, in order."""
    half, steps = (frames + 1) // 2, subsampled_length(frames)
    bins = architecture.feature_dim
    channels = architecture.front_end_channels
    if architecture.front_end == "vgg":
        positions = [size * bins for size in (frames, frames, half, half)]
    else:
        positions = [half * ((bins + 1) // 2), steps * architecture.subsampled_feature_dim]
    maps = [count * size for count, size in zip(channels, positions, strict=True)]
    return [frames * bins, *maps]
