"""The report as one HTML file: no script, no link to anything outside, figures inside."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from io import BytesIO
from typing import TYPE_CHECKING

from jinja2 import Environment, StrictUndefined

from ortho_edge.pareto import COSTS, Front, front_figure
from ortho_edge.plots import selection_map
from ortho_edge.reporting.comparison import overlaps
from ortho_edge.reporting.figures import runs_against_flops, training_curves
from ortho_edge.reporting.runs import Run, Scores
from ortho_edge.training.evaluation import ErrorRates

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TEMPLATE = "report.html.jinja"


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A figure as it stands in the page."""

    title: str
    source: str
    """Data URL."""


@dataclass(frozen=True, kw_only=True)
class Table:
    """Rows of text under a heading; the first column names the row."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""


def page(runs: Sequence[Run], fronts: Sequence[Front], command: str) -> str:
    """The report of a checkpoint, compared with others where more are given.

    Args:
        runs: The checkpoint of the report first.
        fronts: What its sizes cost on devices.
        command: What made the report.
    """
    from matplotlib import rc_context

    run = runs[0]
    # A name with dollar signs is a name and no formula.
    with rc_context({"text.parse_math": False}):
        pictures = list(_pictures(runs, fronts))
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    template = resources.files("ortho_edge.reporting").joinpath(TEMPLATE).read_text("utf-8")
    return environment.from_string(template).render(
        title=run.name,
        facts=_facts(run),
        tables=[
            *_size_tables(run, fronts),
            *[_score_table(run, name, scores) for name, scores in run.scores.items()],
            *(_comparison(runs) if len(runs) > 1 else []),
        ],
        pictures=pictures,
        command=command,
    )


def _facts(run: Run) -> Mapping[str, str]:
    """Where the checkpoint comes from."""
    provenance, space = run.checkpoint.provenance, run.checkpoint.supernet.space
    architecture = space.architecture
    chunks = architecture.front_end_chunks
    front_end = f"front end in {chunks} chunks, " if chunks > 1 else ""
    facts = {
        "network": f"{architecture.num_blocks} blocks of width {architecture.dim}, "
        f"{architecture.num_heads} heads, feed-forward width {architecture.ffn_dim}, "
        f"{front_end}"
        f"{space.total_cost('params'):,.0f} parameters, {len(space)} components",
        "symbols": f"{len(run.checkpoint.tokens)}",
        "method": run.method,
        "recipe": str(provenance.get("recipe", "unknown")),
        "command": str(provenance.get("command", "unknown")),
        "commit": str(provenance.get("commit", "unknown")),
        "updates": str(run.settings.get("num_steps", "unknown")),
        "seed": str(run.settings.get("seed", "unknown")),
        "data digest": str(provenance.get("data_digest", "unknown")),
        "versions": ", ".join(
            f"{name} {version}" for name, version in dict(provenance.get("versions", {})).items()
        )
        or "unknown",
    }
    entropy = provenance.get("row_entropy_at_freeze")
    if entropy is not None:
        facts["row entropy at the freeze"] = f"{entropy:.4f} of the largest possible"
    collisions = provenance.get("row_collisions_at_freeze")
    if collisions is not None:
        facts["row collisions at the freeze"] = str(collisions)
    return facts


def _size_tables(run: Run, fronts: Sequence[Front]) -> list[Table]:
    space = run.checkpoint.supernet.space
    sizes = Table(
        title="Sizes",
        header=("size", "parameters", "FLOPs", "components", "dev WER, %", "dev CER, %"),
        rows=[
            (
                one.name,
                f"{space.cost(one.subnet, 'params'):,.0f}",
                f"{100 * run.flops_share(one):.1f} %",
                f"{len(one.subnet.kept)} of {len(space)}",
                *(_metric(one.metrics.get(name)) for name in ("dev_wer", "dev_cer")),
            )
            for one in run.checkpoint.subnets
        ],
    )
    return [sizes, *(_cost_table(front) for front in fronts)]


def _metric(value: float | None) -> str:
    return "not measured" if value is None else f"{value:.2f}"


def _cost_table(front: Front) -> Table:
    on_front = {cost: front.names(cost) for cost in COSTS}
    return Table(
        title=f"Costs on {front.device}",
        header=("size", "dev WER, %", *COSTS.values()),
        rows=[
            (
                one.trained.name,
                _metric(one.error_rate),
                *(
                    f"{getattr(one, cost):.4g}{' *' if one.trained.name in on_front[cost] else ''}"
                    for cost in COSTS
                ),
            )
            for one in front.candidates
        ],
        note=f"For {front.budget.audio_seconds:g} s of audio, {front.basis}. "
        "* on the Pareto front: no other size beats it in dev WER and in this cost.",
    )


def _score_table(run: Run, name: str, scores: Mapping[str, Scores]) -> Table:
    groups = sorted({group for one in scores.values() for group in one.groups})
    first = next(iter(scores.values()))
    some, account = first.rates, first.account
    scored = f" {'; '.join(account.lines())}." if account is not None else ""
    return Table(
        title=f"Error rates on {name}",
        header=("size", "WER, % (95 %)", "CER, %", *(f"WER, {group}" for group in groups)),
        rows=[
            (
                size,
                _interval(one.rates),
                f"{one.rates.cer:.2f}",
                *(_interval(one.groups[group]) for group in groups),
            )
            for size, one in scores.items()
        ],
        note=f"{some.utterances} utterances, {some.words} words, {some.speakers} speakers; greedy "
        f"decoding; intervals by drawing {some.resampled}.{scored}",
    )


def _interval(rates: ErrorRates) -> str:
    low, high = rates.wer_interval
    return f"{rates.wer:.2f} ({low:.2f} - {high:.2f})"


def _comparison(runs: Sequence[Run]) -> list[Table]:
    sets = list(runs[0].scores)
    table = Table(
        title="Runs compared",
        header=(
            "run",
            "method",
            "seed",
            "size",
            "FLOPs",
            "dev WER, %",
            *(f"WER on {s}" for s in sets),
        ),
        rows=[
            (
                run.name,
                run.method,
                str(run.settings.get("seed", "unknown")),
                one.name,
                f"{100 * run.flops_share(one):.1f} %",
                _metric(one.metrics.get("dev_wer")),
                *(_interval(run.scores[name][one.name].rates) for name in sets),
            )
            for run in runs
            for one in run.checkpoint.subnets
        ],
    )
    overlap = Table(
        title="How alike the selections are",
        header=("size", "modules", "by chance", "components", "by chance", "kept by all", "kept"),
        rows=[
            (
                one.size,
                f"{one.modules:.2f}",
                f"{one.modules_by_chance:.2f}",
                f"{one.components:.2f}",
                f"{one.components_by_chance:.2f}",
                str(one.in_all),
                ", ".join(map(str, one.kept)),
            )
            for one in overlaps(runs)
        ],
        note="Jaccard indices, 1 where all keep the same, averaged over pairs of runs: of the "
        "number of units that each module keeps, and of the very components, alike at first.",
    )
    return [table, overlap] if overlap.rows else [table]


def _pictures(runs: Sequence[Run], fronts: Sequence[Front]) -> "list[Picture]":
    run = runs[0]
    figures: dict[str, Figure] = {
        f"WER against FLOPs on {name}": runs_against_flops(runs, name) for name in run.scores
    }
    if fronts:
        figures["Dev WER against costs on devices"] = front_figure(fronts)
    figures["What each size keeps, by block and module"] = selection_map(
        run.checkpoint.supernet.space, run.checkpoint.subnets
    )
    if run.curves:
        figures["Training"] = training_curves(run)
    return [Picture(title=title, source=_data_url(one)) for title, one in figures.items()]


def _data_url(figure: "Figure") -> str:
    buffer = BytesIO()
    figure.savefig(buffer, format="svg")
    return "data:image/svg+xml;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
