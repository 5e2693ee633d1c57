"""A profile of an Ethos-U: every module lowered alone, Vela's cycles and memory as tables.

Vela prices one shape at a time, and in cycles a network costs the sum of its modules. So nothing is
fitted: each number of units of each module, at each length, is one row and column. A module alone,
or right behind the front end, takes some cycles more than behind another module, whatever its
number of units: networks of one and of two modules tell how many, and they come off. Whole random
subnets are lowered besides, and the profile states by how much their cycles differ.
"""

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import numpy as np

from ortho_edge.checkpoint import Checkpoint
from ortho_edge.cli import UserError
from ortho_edge.components import FRAMES_PER_SECOND, FRONT_END, ComponentSpace, Module
from ortho_edge.devices.profile import (
    DEFAULT_AUDIO_SECONDS,
    SCHEMA_VERSION,
    VELA,
    AssumedSpeed,
    Core,
    DefaultBudget,
    DeviceProfile,
    Hardware,
    MemoryCost,
    RuntimeCost,
    SizeCost,
    TextFact,
)
from ortho_edge.devices.shape_tables import ModuleTable, ShapeTables, shape_of
from ortho_edge.devices.workload import KIND_OF, workload
from ortho_edge.subnet import Subnet
from ortho_export.ethos_u.environment import lower_all, python
from ortho_export.ethos_u.pipeline import PRECISION
from ortho_export.ethos_u.protocol import Job, Lowered, Part, Request
from ortho_export.ethos_u.windows import speech_windows
from ortho_export.facts import Facts
from ortho_export.results import ETHOS_U

ACCELERATORS = ("ethos-u55-128", "ethos-u85-256")
LENGTHS = (1.0, 4.0, DEFAULT_AUDIO_SECONDS, 10.0)
"""Seconds of audio of the tables; between two of them the straight line counts."""
HELD_OUT = ((0.05, 1.0), (0.15, 4.0), (0.1, 10.0))
"""Share of the components and seconds of audio of the whole subnets that the tables are checked
on."""
MODULES: tuple[Module, ...] = ("ffn1", "mhsa", "conv")
"""One of each kind: both feed-forward modules are alike."""
FIXED: tuple[Part, ...] = ("norm", "last_norm", "ctc_head")
BEHIND: tuple[Module, ...] = ("conv", "mhsa", "ffn2")
"""One of each kind, that another module may stand before in the same block."""
CONTEXT = "context"
"""In names of networks that are lowered whole."""
NO_DIGEST = 64 * "0"
"""What is lowered here is deleted after it was counted."""


def table_jobs(space: ComponentSpace, lengths: Sequence[float] = LENGTHS) -> Iterator[Job]:
    """Every choice of every module alone, at every length."""
    for seconds in lengths:
        frames = round(seconds * FRAMES_PER_SECOND)
        first = space.module_slice(*FRONT_END).start
        for chunks in range(1, space.architecture.front_end_chunks + 1):
            yield Job(
                name=_name("front_end", chunks, seconds),
                kept=tuple(range(first, first + chunks - 1)),
                frames=frames,
                part="front_end",
            )
        for part in FIXED:
            yield Job(name=_name(part, 1, seconds), kept=(), frames=frames, part=part)
        for module in MODULES:
            first = space.module_slice(0, module).start
            for units in range(1, space.num_units(module) + 1):
                yield Job(
                    name=_name(KIND_OF[module], units, seconds),
                    kept=tuple(range(first, first + units)),
                    frames=frames,
                    part="module",
                )


def context_jobs(space: ComponentSpace, lengths: Sequence[float] = LENGTHS) -> Iterator[Job]:
    """A network of one chunk, and with one unit of another module behind it, of each kind."""
    first, block = space.module_slice(0, "ffn1").start, min(1, space.architecture.num_blocks - 1)
    for seconds in lengths:
        frames = round(seconds * FRAMES_PER_SECOND)
        yield Job(name=_name(CONTEXT, 1, seconds), kept=(first,), frames=frames)
        for module in BEHIND:
            kept = (first, space.module_slice(block, module).start)
            yield Job(name=_behind(KIND_OF[module], seconds), kept=kept, frames=frames)


def held_out_jobs(space: ComponentSpace, seed: int = 0) -> Iterator[Job]:
    """Whole random subnets."""
    generator = np.random.default_rng(seed)
    for share, seconds in HELD_OUT:
        size = max(1, round(share * len(space)))
        kept = generator.choice(len(space), size, replace=False).tolist()
        yield Job(
            name=f"held-out-{100 * share:.0f}",
            kept=Subnet.of(len(space), kept).kept,
            frames=round(seconds * FRAMES_PER_SECOND),
        )


def _name(kind: str, units: int, seconds: float) -> str:
    return f"{kind}-{units}-{seconds:g}s"


def _behind(kind: str, seconds: float) -> str:
    return _name(f"{CONTEXT}-{kind}", 1, seconds)


def measure(
    accelerator: str,
    checkpoint: Checkpoint,
    sample: np.ndarray | None,
    done: Callable[[str], object] = lambda name: None,
) -> DeviceProfile:
    """Lowers all there is to lower and makes a profile of it.

    Args:
        accelerator: Vela's name of the configuration.
        checkpoint: Whose architecture and weights.
        sample: Speech that ranges are taken from.
        done: Called with the name of every network that is lowered.

    Raises:
        UserError: The accelerator is unknown, there is no environment to lower in, or no speech.
    """
    if accelerator not in ACCELERATORS:
        raise UserError(f"unknown Ethos-U {accelerator!r}; known: {', '.join(ACCELERATORS)}")
    python()
    space = checkpoint.supernet.space
    jobs = [*table_jobs(space), *context_jobs(space), *held_out_jobs(space)]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        answer = lower_all(costed(accelerator, checkpoint, sample, jobs), folder, done)
        sizes = {one: (folder / low.file).stat().st_size for one, low in answer.lowered.items()}
    return profile_of(accelerator, space, answer.lowered, sizes, list(held_out_jobs(space)))


def costed(
    accelerator: str, checkpoint: Checkpoint, sample: np.ndarray | None, jobs: Sequence[Job]
) -> Request:
    """A request for jobs whose cost counts, not what they hear.

    Args:
        accelerator: Vela's name of the configuration.
        checkpoint: Whose architecture and weights.
        sample: Speech that ranges are taken from.
        jobs: To do.

    Raises:
        UserError: There is no speech.
    """
    supernet, tokens = checkpoint.supernet, checkpoint.tokens
    facts = Facts(subnet="held-out", tokens=tokens, checkpoint_digest=NO_DIGEST)
    return Request(
        accelerator=accelerator,
        architecture=supernet.architecture,
        num_heads=len(supernet.ctc_heads),
        jobs=jobs,
        constants=facts.constants(),
        supernet=supernet.state_dict(),
        calibration={
            f"{frames}-{name}": window
            for frames in sorted({job.frames for job in jobs})
            for name, window in speech_windows(sample, None, tokens, frames).calibration.items()
        },
    )


def profile_of(
    accelerator: str,
    space: ComponentSpace,
    lowered: Mapping[str, Lowered],
    sizes: Mapping[str, int],
    held_out: Sequence[Job],
    lengths: Sequence[float] = LENGTHS,
) -> DeviceProfile:
    """The profile that lowered modules make.

    Args:
        accelerator: Vela's name of the configuration.
        space: Of the architecture.
        lowered: By the name of the job, of `table_jobs`, `context_jobs` and `held_out`.
        sizes: Bytes of each program.
        held_out: Whole subnets to check on.
        lengths: Of the tables, in seconds.
    """
    tables = _tables(space, lowered, sizes, lengths)
    errors, ends = [], []
    for job in held_out:
        seconds = job.frames / FRAMES_PER_SECOND
        works = workload(space, Subnet(len(space), job.kept), seconds)
        units = [(work.kind, work.units) for work in works]
        found = lowered[job.name].cost.cycles
        errors.append(100 * abs(tables.cycles(units, seconds) / found - 1))
        ends.append(sizes[job.name] / 1e3 - tables.file_kb(units, seconds))
    cost = next(iter(lowered.values())).cost
    where = f"Vela {cost.vela}, {cost.system_config}, {cost.memory_mode}"
    today = datetime.now(UTC).date().isoformat()
    speed = AssumedSpeed(
        clock_ghz=cost.clock_ghz,
        source=f"Vela's system configuration {cost.system_config}; a chip may run at another",
    )
    costs = RuntimeCost(
        provenance=VELA,
        source=(
            f"{today}, {where}: every module lowered alone in {PRECISION}, less what it takes only "
            f"there, checked on {len(held_out)} whole subnets"
        ),
        tables=tables,
        memory=MemoryCost(
            provenance=VELA,
            source=f"{where}: the accelerator's tensor arena; weights stay in flash",
            fixed_mb=0.0, weight_copies=0.0, activation_copies=0.0,
        ),
        size=SizeCost(
            provenance=VELA,
            source=(
                f"programs of ExecuTorch with code of Vela {cost.vela}, module by module; weights "
                "are compressed, so those of another checkpoint differ by some per cent"
            ),
            bytes_per_parameter=0.0,
            fixed_kb=round(max(0.0, float(np.mean(ends))), 2),
        ),
        error_percent=round(float(np.mean(errors)), 2),
        worst_error_percent=round(float(np.max(errors)), 2),
        assumed_speed=speed,
    )  # fmt: skip
    return DeviceProfile(
        schema_version=SCHEMA_VERSION,
        name=accelerator,
        description=f"{accelerator}, {PRECISION}, cycles by Vela at {cost.clock_ghz:g} GHz",
        hardware=Hardware(
            soc=TextFact(value=f"any with an {accelerator}", source="named by the user"),
            runs_on=accelerator,
            cores=(Core(name=accelerator, count=1, clock_ghz=cost.clock_ghz, source=speed.source),),
        ),
        budget=DefaultBudget(
            latency_ms=10 * DEFAULT_AUDIO_SECONDS,
            audio_seconds=DEFAULT_AUDIO_SECONDS,
            memory_mb=1.0,
            reason="a hundredth of real time, and a megabyte of SRAM",
        ),
        runtimes={ETHOS_U: {PRECISION: costs}},
    )


def _tables(
    space: ComponentSpace,
    lowered: Mapping[str, Lowered],
    sizes: Mapping[str, int],
    lengths: Sequence[float],
) -> ShapeTables:
    rows = {"front_end": space.architecture.front_end_chunks, "norm": 1, "ctc_head": 1}
    kinds = {KIND_OF[module]: space.num_units(module) for module in MODULES}
    rows |= kinds

    # What even the smallest program holds besides weights, once in every program of a part.
    wrapping = min(
        sizes[job.name] - lowered[job.name].cost.flash_bytes for job in table_jobs(space, lengths)
    )

    def cycles_of(name: str) -> int:
        return lowered[name].cost.cycles

    def alone(kind: str, seconds: float) -> int:
        """Cycles that a module takes alone and not behind another one."""
        behind = cycles_of(_behind(kind, seconds)) - cycles_of(_name(CONTEXT, 1, seconds))
        return cycles_of(_name(kind, 1, seconds)) - behind

    def cost(kind: str, units: int, seconds: float) -> tuple[float, float, float]:
        """Cycles, SRAM and file in kB."""
        name = _name(kind, units, seconds)
        less = alone(kind, seconds) if kind in kinds else 0
        sram = lowered[name].cost.sram_bytes
        return cycles_of(name) - less, sram / 1e3, (sizes[name] - wrapping) / 1e3

    def front_end(chunks: int, seconds: float) -> tuple[float, float, float]:
        # A network has one front end and one last norm. So what tells that norm from the others
        # stands here, with what its first module takes more, and a table of norms has one row.
        ours, least = (cost("front_end", one, seconds) for one in (chunks, 1))
        norm, last, head, ffn = (
            cost(one, 1, seconds) for one in ("norm", "last_norm", "ctc_head", "ffn")
        )
        others = space.architecture.num_blocks * norm[0] + head[0] + ffn[0]
        rest = cycles_of(_name(CONTEXT, 1, seconds)) - others - least[0]
        return ours[0] + rest, ours[1], round(ours[2] + last[2] - norm[2], 3)

    def table(kind: str) -> ModuleTable:
        price = front_end if kind == "front_end" else partial(cost, kind)
        costs = [[price(units, one) for one in lengths] for units in range(1, rows[kind] + 1)]
        cycles, sram, file = (
            tuple(tuple(one[index] for one in row) for row in costs) for index in range(3)
        )
        return ModuleTable(cycles=cycles, sram_kb=sram, file_kb=file)

    return ShapeTables(
        shape=shape_of(space.architecture),
        audio_seconds=tuple(lengths),
        modules={kind: table(kind) for kind in rows},
    )
