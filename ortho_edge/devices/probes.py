"""The networks that a profile is fitted to, and those it is checked on."""

import dataclasses
from dataclasses import dataclass

import numpy as np
import torch

from ortho_edge.checkpoint import Checkpoint, TrainedSubnet
from ortho_edge.components import ComponentSpace, Module
from ortho_edge.subnet import Subnet
from ortho_edge.supernet import Supernet
from ortho_edge.tokens import BLANK, Tokens

FIT_SHARES = (0.3,)
HELD_OUT_SHARES = (0.2, 0.6)
MORE_SHARES = (0.12, 0.2, 0.4, 0.52, 0.68, 0.84)
"""Of further whole networks for times: caches hold the weights of two blocks, not those of all."""
WIDE_VOCAB = 512
FEW_BLOCKS = 2
"""Enough to see what a module costs, and quick to export."""


@dataclass(frozen=True, kw_only=True)
class Probe:
    """A network to measure.

    Attributes:
        whole: Has modules of all kinds, like a trained subnet.
        held_out: Is kept from the fit.
    """

    checkpoint: Checkpoint
    trained: TrainedSubnet
    whole: bool = False
    held_out: bool = False


def probes(checkpoint: Checkpoint, seed: int, *, for_times: bool = False) -> list[Probe]:
    """Networks that tell the costs of the module kinds apart, whole ones, and held-out ones.

    Args:
        checkpoint: Whose architecture they have.
        seed: Of the random ones.
        for_times: Whether caches matter to what is measured: then more whole ones are needed.
    """
    space = checkpoint.supernet.space
    generator = np.random.default_rng(seed)
    few = _reshaped(checkpoint, num_blocks=FEW_BLOCKS)
    small = few.supernet.space

    def whole(name: str, share: float, *, held_out: bool = False) -> Probe:
        size = max(1, round(share * len(space)))
        kept = generator.choice(len(space), size, replace=False).tolist()
        return _probe(checkpoint, name, Subnet.of(len(space), kept), whole=True, held_out=held_out)

    return [
        *_shape_probes(checkpoint),
        _probe(checkpoint, "empty", _only(space)),
        _probe(few, "ffn", _only(small, "ffn1", "ffn2")),
        _probe(few, "ffn-one-chunk", _only(small, "ffn1", "ffn2", units=1)),
        _probe(few, "conv", _only(small, "conv")),
        _probe(few, "mhsa", _only(small, "mhsa")),
        _probe(few, "mhsa-one-head", _only(small, "mhsa", units=1)),
        _probe(checkpoint, "full", space.full(), whole=True),
        *(whole(f"random-{100 * share:.0f}", share) for share in FIT_SHARES),
        *(whole(f"held-out-{100 * share:.0f}", share, held_out=True) for share in HELD_OUT_SHARES),
        *(whole(f"whole-{100 * share:.0f}", share) for share in MORE_SHARES if for_times),
    ]


def _shape_probes(checkpoint: Checkpoint) -> list[Probe]:
    """One-block networks of other shapes.

    They tell the norm and the CTC head from the front end, and, by another width, FLOPs from
    activations: the former grow with its square.
    """
    architecture = checkpoint.supernet.architecture
    narrow = _reshaped(checkpoint, vocab_size=architecture.vocab_size)
    wide = _reshaped(checkpoint, dim=2 * architecture.dim, ffn_dim=2 * architecture.ffn_dim)
    head = _reshaped(checkpoint, vocab_size=WIDE_VOCAB)
    space = wide.supernet.space
    return [
        _probe(narrow, "one-block", _only(narrow.supernet.space)),
        _probe(head, "wide-head", _only(head.supernet.space)),
        _probe(wide, "wide-ffn", _only(space, "ffn1", "ffn2")),
        _probe(wide, "wide-conv", _only(space, "conv")),
        _probe(wide, "wide-mhsa", _only(space, "mhsa")),
    ]


def _reshaped(checkpoint: Checkpoint, **changes: int) -> Checkpoint:
    """A checkpoint of another shape with random weights; one block unless `changes` says more."""
    architecture = dataclasses.replace(
        checkpoint.supernet.architecture, **{"num_blocks": 1, **changes}
    )
    # The random state belongs to the caller; weights of a probe only need to be ordinary.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        supernet = Supernet(architecture).eval()
    symbols = (BLANK, *(f"t{index}" for index in range(1, architecture.vocab_size)))
    return Checkpoint(supernet=supernet, tokens=Tokens(symbols), subnets=())


def _probe(
    checkpoint: Checkpoint,
    name: str,
    subnet: Subnet,
    *,
    whole: bool = False,
    held_out: bool = False,
) -> Probe:
    trained = TrainedSubnet(name=name, subnet=subnet, head=0, target=1.0)
    return Probe(checkpoint=checkpoint, trained=trained, whole=whole, held_out=held_out)


def _only(space: ComponentSpace, *modules: Module, units: int | None = None) -> Subnet:
    """Every block keeps the first `units` units of these modules and nothing else."""
    kept = [
        index
        for block in range(space.architecture.num_blocks)
        for module in modules
        for index in range(len(space))[space.module_slice(block, module)][:units]
    ]
    return Subnet.of(len(space), kept)
