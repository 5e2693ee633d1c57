"""One training step of a 12-block, 512-wide supernet under the sandwich rule, several ways."""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.on_gpu.correctness import kernels
from bench.on_gpu.timing import median_ms
from ortho_edge.components import ComponentSpace
from ortho_edge.conformer.architecture import Architecture
from ortho_edge.subnet import Subnet, stack_gates
from ortho_edge.supernet import Supernet
from ortho_kernels.worklist import SubnetPlan

FULL_SIZE = Architecture(
    vocab_size=512, dim=512, num_blocks=12, num_heads=8, ffn_dim=2048, num_ffn_chunks=8
)
SHARES = (1.0, 0.25, 0.5)
"""Full, smallest, middle."""


@dataclass(frozen=True)
class StepTiming:
    """One way to do the step.

    Attributes:
        name: Implementation and how the subnets run.
        milliseconds: Median of forward and backward of all three subnets.
        peak_mb: Memory above what parameters and inputs take, in 10^6 bytes.
        loss: Sum of the three CTC losses; must agree between the ways.
        failure: Why there is no time, if so.
    """

    name: str
    milliseconds: float
    peak_mb: float
    loss: float
    failure: str = ""


def subnet_with(space: ComponentSpace, share: float) -> Subnet:
    """The first units of every module and every (1 / share)-th convolution."""
    kept = []
    for block in range(space.architecture.num_blocks):
        for module in ("ffn1", "conv", "mhsa", "ffn2"):
            place = space.module_slice(block, module)
            units = place.stop - place.start
            count = round(share * units) if units > 1 else int(block % round(1 / share) == 0)
            kept += range(place.start, place.start + count)
    return Subnet.of(len(space), kept)


class Sandwich:
    """The step's model and batch."""

    def __init__(
        self, architecture: Architecture, batch: int, frames: int, device: torch.device
    ) -> None:
        """Draws weights and a batch of `batch` utterances of `frames` feature frames."""
        torch.manual_seed(0)
        self.device = device
        self.model = Supernet(architecture, len(SHARES)).to(device)
        self.subnets = [subnet_with(self.model.space, share) for share in SHARES]
        self.features = torch.randn(batch, frames, architecture.feature_dim, device=device)
        self.lengths = torch.linspace(0.6, 1, batch).mul(frames).long().to(device)
        num_tokens = max(1, frames // 40)
        self.targets = torch.randint(1, architecture.vocab_size, (batch, num_tokens), device=device)
        self.target_lengths = torch.full((batch,), num_tokens, device=device)

    def plan(self, rows: list[int], *, everything: bool = False) -> SubnetPlan:
        """Work lists of some of the subnets; with `everything` no unit counts as closed."""
        full = self.model.space.full()
        chosen = [full if everything else self.subnets[row] for row in rows]
        return self.model.plan(chosen, self.device)

    def losses(self, forward: Callable, rows: list[int], plan: SubnetPlan) -> Tensor:
        """Sum of the CTC losses of some of the subnets."""
        gates = stack_gates([self.subnets[row] for row in rows]).to(self.device)
        autocast = (
            torch.autocast("cuda", torch.bfloat16) if self.device.type == "cuda" else nullcontext()
        )
        with autocast:
            log_probs, lengths = forward(self.features, self.lengths, gates, tuple(rows), plan=plan)
        total = log_probs.new_zeros(())
        for one in log_probs:
            total = total + F.ctc_loss(
                one.transpose(0, 1), self.targets, lengths, self.target_lengths, zero_infinity=True
            )
        return total


@dataclass(frozen=True)
class Way:
    """One way to do the step.

    Attributes:
        name: For the report.
        kernels: Value of ORTHO_KERNELS.
        compiled: Under torch.compile.
        stacked: All subnets in one forward call; else one call each.
        masked: Closed units are computed and multiplied by 0.
    """

    name: str
    kernels: str
    compiled: bool = False
    stacked: bool = False
    masked: bool = False


def ways() -> list[Way]:
    """What is compared."""
    return [
        Way("masked, eager, one by one", "reference", masked=True),
        Way("plain torch, eager, one by one", "reference"),
        Way("plain torch, eager, stacked", "reference", stacked=True),
        Way("plain torch, compiled, one by one", "reference", compiled=True),
        Way("plain torch, compiled, stacked", "reference", compiled=True, stacked=True),
        Way("ours, eager, one by one", "triton"),
        Way("ours, eager, stacked", "triton", stacked=True),
        Way("ours, compiled, stacked", "triton", compiled=True, stacked=True),
    ]


def time_step(sandwich: Sandwich, way: Way, milliseconds: int = 1000) -> StepTiming:
    """Times one way; one that fails says why."""
    model, device = sandwich.model, sandwich.device
    groups = [list(range(len(SHARES)))] if way.stacked else [[row] for row in range(len(SHARES))]
    plans = [sandwich.plan(rows, everything=way.masked) for rows in groups]
    forward = torch.compile(model, dynamic=False) if way.compiled else model
    cuda = device.type == "cuda"

    def step() -> Tensor:
        model.zero_grad(set_to_none=True)
        total = torch.zeros((), device=device)
        for rows, plan in zip(groups, plans, strict=True):
            loss = sandwich.losses(forward, rows, plan)
            loss.backward()
            total = total + loss.detach()
        return total

    try:
        with kernels(way.kernels):
            loss = float(step())
            base = 0
            if cuda:
                step()
                model.zero_grad(set_to_none=True)
                torch.cuda.synchronize(device)
                torch.cuda.reset_peak_memory_stats(device)
                base = torch.cuda.memory_allocated(device)
                step()
                torch.cuda.synchronize(device)
            peak = torch.cuda.max_memory_allocated(device) - base if cuda else 0
            time = median_ms(step, device, milliseconds)
    except Exception as error:  # noqa: BLE001 - a way that fails is a finding
        first = str(error).splitlines()[0] if str(error) else ""
        nan = float("nan")
        return StepTiming(way.name, nan, nan, nan, f"{type(error).__name__}: {first}"[:200])
    finally:
        torch._dynamo.reset()
    return StepTiming(way.name, time, peak / 1e6, loss)


@dataclass(frozen=True)
class StepRatio:
    """Our best way against the best of a kind of others.

    Attributes:
        other: Name of the other way.
        speedup: Its time over ours.
        peak: Our peak memory over its.
        target: The speed-up that is aimed at.
    """

    other: str
    speedup: float
    peak: float
    target: float


def step_ratios(timings: list[StepTiming]) -> list[StepRatio]:
    """Our best way against compiled plain torch (1.3 is aimed at) and against masking (2)."""
    timed = [one for one in timings if not one.failure]
    ours = [one for one in timed if one.name.startswith("ours")]
    ratios = []
    for kind, target in (("plain torch, compiled", 1.3), ("masked", 2.0)):
        others = [one for one in timed if one.name.startswith(kind)]
        if ours and others:
            best = min(ours, key=lambda one: one.milliseconds)
            other = min(others, key=lambda one: one.milliseconds)
            peak = best.peak_mb / other.peak_mb if other.peak_mb else 1.0
            ratio = other.milliseconds / best.milliseconds
            ratios.append(StepRatio(other.name, ratio, peak, target))
    return ratios
