"""The bench of predictions: which subnets it draws, what it keeps, and that its table can fail."""

import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from bench import bench_prediction
from bench.kept import export_kept
from bench.prediction import subnets, variants
from bench.prediction.cycles import compiler, cycle_rows
from bench.prediction.measuring import count_all
from bench.prediction.report import plot
from bench.prediction.rows import Row, Target, groups, table, worst
from ortho_edge.checkpoint import Checkpoint, TrainedSubnet, load_checkpoint, shipped_checkpoint
from ortho_edge.cli import UserError
from ortho_edge.components import MODULES
from ortho_edge.devices.catalogue import load_profile, read_profile
from ortho_edge.devices.latency import predict_latency
from ortho_edge.devices.measurements import Measurements, Runtime
from ortho_edge.devices.probes import probes
from ortho_edge.devices.timing import Timing
from ortho_edge.devices.workload import Work, workload
from ortho_export.ethos_u.protocol import Cost


@pytest.fixture(scope="module")
def checkpoint() -> Checkpoint:
    return load_checkpoint(shipped_checkpoint())


def test_sixty_subnets_of_all_sizes_that_no_profile_was_fitted_to(checkpoint: Checkpoint) -> None:
    space = checkpoint.supernet.space
    drawn = subnets.held_out_subnets(space)
    assert len({one.subnet for one in drawn}) == len({one.name for one in drawn}) >= 60
    seen = {one.trained.subnet for one in probes(checkpoint, seed=0, for_times=True)}
    seen |= {one.subnet for one in checkpoint.subnets}
    assert not seen & {one.subnet for one in drawn}
    for leading in (8, 16, len(drawn)):
        shares = [len(one.subnet.kept) / len(space) for one in drawn[:leading]]
        counts, _ = np.histogram(shares, bins=4, range=(0.09, 0.98))
        assert counts.min() >= leading // 8, "a part that was built first holds every size too"
    assert drawn == subnets.held_out_subnets(space)
    # Not all alike: of half of the components, some keep nearly all convolutions, some few.
    kept = [
        sum(space.components[index].module == "conv" for index in one.subnet.kept)
        for one in drawn
        if 0.4 < one.target < 0.6
    ]
    assert max(kept) - min(kept) >= space.architecture.num_blocks // 2
    assert set(MODULES) == {one.module for one in space.components}


def export(broken: list[str], checkpoint: Checkpoint, one: TrainedSubnet, folder: Path) -> Path:
    file = folder / f"{one.name}.fp32.pte"
    file.write_text("half" if one.name in broken else "whole")
    if one.name in broken:
        raise KeyboardInterrupt
    return file


def test_what_an_interrupted_build_left_is_whole_and_not_made_again(
    checkpoint: Checkpoint, tmp_path: Path
) -> None:
    broken = ["r01"]
    runtime = Runtime(
        name="executorch", version="1", load=lambda file: print, export=partial(export, broken)
    )
    names = ("r00", "r01")
    first, second = (replace(checkpoint.subnets[0], name=name) for name in names)
    keep = partial(export_kept, runtime, tmp_path, checkpoint)
    made = keep(first)
    before = made.stat().st_mtime_ns
    with pytest.raises(KeyboardInterrupt):
        keep(second)
    assert not (tmp_path / "r01.fp32.pte").exists()
    broken.clear()
    assert keep(second).read_text() == "whole"
    assert keep(first).stat().st_mtime_ns == before


def test_counting_goes_on_where_it_was(checkpoint: Checkpoint, tmp_path: Path) -> None:
    runtime = Runtime(name="executorch", version="1", load=lambda file: print, export=print)  # pyright: ignore[reportArgumentType]
    artefacts = subnets.Artefacts(
        checkpoint=checkpoint, folder=tmp_path, subnets=checkpoint.subnets, runtimes=(runtime,)
    )
    asked = []

    def count(file: Path, lengths: tuple[float, ...]) -> list[int]:
        if len(asked) == 2:
            raise KeyboardInterrupt
        asked.append(file.name)
        return [len(asked)] * len(lengths)

    kept = tmp_path / "counts.json"
    with pytest.raises(KeyboardInterrupt):
        count_all(artefacts, count, kept)
    asked.clear()
    found = count_all(replace(artefacts, subnets=checkpoint.subnets[:3]), count, kept)
    assert asked == [f"{checkpoint.subnets[2].name}.fp32.pte"]
    assert [one[0] for one in found.values()] == [1, 2, 1]


def test_a_variant_with_the_right_term_explains_what_the_profile_cannot(
    checkpoint: Checkpoint, tmp_path: Path
) -> None:
    """Weights beyond 2 MB cost more: only that variant meets the held-out subnets."""
    space = checkpoint.supernet.space

    def milliseconds(works: tuple[Work, ...]) -> float:
        weights = 4e-6 * sum(work.params for work in works)
        flops = sum(work.flops for work in works)
        return 1e-8 * flops + 0.01 * len(works) + 0.3 * max(0, weights - 2)

    runtime = Runtime(name="executorch", version="1", load=lambda file: print, export=print)  # pyright: ignore[reportArgumentType]
    made = tuple(probes(checkpoint, seed=0, for_times=True))
    timings = {
        (runtime.key, one.trained.name, seconds): Timing(
            milliseconds=milliseconds(
                workload(one.checkpoint.supernet.space, one.trained.subnet, seconds)
            ),
            spread_percent=0, median_milliseconds=1,
        )
        for one in made
        for seconds in (1.0, 2.0, 4.0, 10.0)
    }  # fmt: skip
    measured = Measurements(probes=made, files={}, timings=timings)
    worst_error = {}
    for variant in variants.VARIANTS:
        predict = variants.fitted(variant, variants.observations(measured, runtime, False))
        works = [workload(space, one.subnet, 4.0) for one in subnets.held_out_subnets(space)]
        errors = [abs(predict(one) / milliseconds(one) - 1) for one in works]
        worst_error[variant.name] = max(errors)
    best = worst_error["weights beyond 2 MB cost more"]
    assert best == min(worst_error.values())
    assert best < 0.5 * worst_error["as the profile"]


def busy(features: np.ndarray) -> None:
    """Some time, more for longer audio."""
    for _ in range(features.shape[1] // 100):
        features.sum()


def test_the_latency_part_profiles_times_and_reports_every_subnet(
    checkpoint: Checkpoint,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """With a runtime that computes nothing, so the figures mean nothing."""
    monkeypatch.setattr("ortho_edge.devices.profiler.can_measure", lambda: False)
    runtime = Runtime(
        name="executorch", version="1", export=partial(export, []), load=lambda file: busy
    )
    artefacts = subnets.Artefacts(
        checkpoint=checkpoint, folder=tmp_path,
        subnets=subnets.held_out_subnets(checkpoint.supernet.space)[:5], runtimes=(runtime,),
    )  # fmt: skip
    out = tmp_path / "results"
    bench_prediction._latency(
        bench_prediction.Arguments(part="latency", seconds=0.3, out=out), artefacts
    )
    printed = capsys.readouterr().out
    assert "5 held-out subnets" in printed
    for audio, figures in (("1 s", 5), ("4 s", 5), ("10 s", 5), ("all", 15)):
        assert f"| latency, ms | executorch | {audio} | {figures} |" in printed
    for variant in variants.VARIANTS:
        assert f"| {variant.name} | " in printed
    assert read_profile(out / "prediction_host.toml").runtimes["executorch"]["fp32"].p50_ratio
    written = json.loads((out / "prediction_latency.json").read_text())
    assert len(written["rows"]) == 15
    assert len(written["probes"]) == 4 * len(probes(checkpoint, seed=0, for_times=True))
    assert {"executorch", "onnxruntime"} <= set(written["versions"])
    assert (out / "prediction_latency.png").is_file()


def row(predicted: float, seconds: float | None = 1.0, quantity: str = "latency, ms") -> Row:
    return Row(
        subnet="r00", share=0.5, runtime="executorch", precision="fp32", quantity=quantity,
        seconds=seconds, predicted=predicted, measured=100.0, halves_percent=0.5,
        p50=104.0,
    )  # fmt: skip


def test_a_target_is_met_or_missed_and_the_table_says_which() -> None:
    good = [row(100 + error) for error in (-3, 2, 4, 1)]
    line = table(good).splitlines()[2]
    assert "| 2.50 % | +1.00 % | 4.00 % | 0.50 %, 0.5 % at worst | 1.040 |" in line
    assert line.endswith("| mean 4 %, 95 % within 10 % | yes |")
    assert table([*good, row(111)]).splitlines()[2].endswith("| no, 80 % are within |")
    assert table([row(95), row(106)]).splitlines()[2].endswith("| no, 100 % are within |")
    sizes = [replace(row(100.9, None, "file size, MB"), halves_percent=None)]
    assert table(sizes).splitlines()[2].endswith("| all within 1 % | yes |")
    sizes.append(replace(sizes[0], predicted=98.9))
    assert table(sizes).splitlines()[2].endswith("| no, 50 % are within |")
    assert [one.predicted for one in worst([*good, row(60)], 2)] == [60, 104]


def test_every_length_has_a_line_and_all_lengths_together_one() -> None:
    rows = [row(100, seconds) for seconds in (10.0, 1.0, 10.0)]
    assert [(key[3], len(group)) for key, group in groups(rows).items()] == [
        (1.0, 1), (10.0, 2), (None, 3),
    ]  # fmt: skip


def test_a_share_of_the_figures_may_be_enough() -> None:
    errors = np.array([0.0] * 19 + [11.0])
    assert Target(worst_percent=10, share=0.95).met(errors)
    assert not Target(worst_percent=10, share=0.96).met(errors)
    assert not Target(worst_percent=10, share=0.95, mean_percent=0.5).met(errors)


def test_the_plot_holds_every_runtime(tmp_path: Path) -> None:
    rows = [row(90), row(110, 10.0), replace(row(130), runtime="onnxruntime", measured=120.0)]
    plot(tmp_path / "plot.png", rows)
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")


def test_cycles_go_on_where_they_were_and_stand_beside_the_tables(
    checkpoint: Checkpoint, tmp_path: Path
) -> None:
    profile = load_profile("ethos-u85-256")
    space = checkpoint.supernet.space
    drawn = subnets.held_out_subnets(space)[:4]
    asked = []

    def found(subnet: TrainedSubnet, seconds: float) -> Cost:
        if len(asked) == 2:
            raise KeyboardInterrupt
        asked.append((subnet.name, seconds))
        return Cost(
            cycles=1_000_000, clock_ghz=1.0, sram_bytes=64_000, flash_bytes=0, system_config="",
            memory_mode="", vela="",
        )  # fmt: skip

    kept = tmp_path / "cycles.json"
    rows = partial(cycle_rows, checkpoint, profile, drawn, found, kept)
    with pytest.raises(KeyboardInterrupt):
        list(rows())
    first = asked.copy()
    asked.clear()
    done = list(rows())
    assert [*first, *asked] == [(one.name, (1.0, 4.0, 10.0, 1.0)[n]) for n, one in enumerate(drawn)]
    assert {one.quantity for one in done} == {"cycles, M", "arena, kB"}
    for one, subnet in zip(done[::2], drawn, strict=True):
        assert one.seconds is not None
        latency = predict_latency(
            profile, space, subnet.subnet, one.seconds, "ethos-u", "int8-static"
        )
        assert latency.assumed_speed is not None
        assert latency.assumed_speed.milliseconds(1e6 * one.predicted) == pytest.approx(
            latency.milliseconds
        )
        assert (one.measured, one.subnet) == (1.0, subnet.name)
    with pytest.raises(UserError, match="'pixel8' is no Ethos-U"):
        compiler(load_profile("pixel8"), checkpoint, tmp_path)
