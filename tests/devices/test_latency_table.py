import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from bench.latency_table import (
    Arguments,
    Record,
    disproportionate,
    latency_table,
    main,
    plot_latency,
    records,
)
from ortho_edge.cli import UserError


def record(
    subnet: str, runtime: str, seconds: float, milliseconds: float, share: float,
    precision: str = "fp32", of_full: float = 1.0,
) -> Record:  # fmt: skip
    return Record(
        precision=precision,
        subnet=subnet,
        runtime=runtime,
        seconds=seconds,
        milliseconds=milliseconds,
        median=2 * milliseconds,
        params=round(1e6 * share),
        flops=1e8 * share * seconds,
        flops_share=share,
        share=of_full,
    )


FOUND = [
    record("small", "ort", 4.0, 3.0, 0.25, of_full=0.31),
    record("full", "ort", 4.0, 6.0, 1.0),
    record("full", "et", 4.0, 5.0, 1.0),
    record("full", "ort", 1.0, 2.0, 1.0),
    record("small", "ort", 1.0, 1.5, 0.25, of_full=0.74),
]


def test_the_table_shows_shares_of_the_largest_for_every_length() -> None:
    lines = [" ".join(line.split()) for line in latency_table(FOUND)]
    assert lines == [
        "audio size parameters FLOPs ort (ms) et (ms)",
        "1 s full 1,000,000 100.0 % 2.00 4.00 100.0 % -",
        "1 s small 250,000 25.0 % 1.50 3.00 74.0 % -",
        "4 s full 1,000,000 100.0 % 6.00 12.00 100.0 % 5.00 10.00 100.0 %",
        "4 s small 250,000 25.0 % 3.00 6.00 31.0 % -",
    ]
    assert len({len(line) for line in latency_table(FOUND)}) == 1


def test_another_precision_shows_how_much_faster_than_fp32_it_is() -> None:
    found = [
        *FOUND,
        record("full", "ort", 4.0, 2.0, 1.0, "int8"),
        record("small", "ort", 4.0, 2.0, 0.25, "int8"),
        record("new", "ort", 4.0, 9.0, 0.1, "int8"),
    ]
    lines = [line.split() for line in latency_table(found)]
    assert lines[0][-3:] == ["ort", "int8", "(ms)"]
    assert [line[-1] for line in lines[1:3]] == ["-", "-"], "not measured on 1 s"
    assert [line[-3:] for line in lines[3:5]] == [["4.00", "3.00", "x"], ["4.00", "1.50", "x"]]
    assert lines[5][-2:] == ["9.00", "18.00"], "without fp32 there is nothing to compare with"


def benchmark(extra: dict[str, object], *, has_error: bool = False) -> SimpleNamespace:
    return SimpleNamespace(
        extra_info=extra, has_error=has_error, stats=SimpleNamespace(min=0.004, median=9.0)
    )


def test_only_latency_benchmarks_that_ran_are_shown() -> None:
    extra = {
        "bench": "latency", "subnet": "s", "runtime": "et", "precision": "fp32", "seconds": 4.0,
        "params": 7, "flops": 9.0, "flops_share": 1.0, "share": 1.0, "size_mb": 3.0,
    }  # fmt: skip
    found = records([benchmark({}), benchmark(extra), benchmark(extra, has_error=True)])
    assert [one.milliseconds for one in found] == [pytest.approx(4.0)]
    assert [one.median for one in found] == [pytest.approx(9000.0)]
    assert (found[0].subnet, found[0].params) == ("s", 7)


def test_the_plot_is_an_image(tmp_path: Path) -> None:
    path = tmp_path / "results" / "latency.png"
    plot_latency(FOUND, path)
    assert path.read_bytes().startswith(b"\x89PNG")


def test_what_costs_more_than_its_flops_is_named() -> None:
    above = disproportionate(FOUND)
    assert above[0] == "1 of 5 are above their share of the FLOPs and 8 points:"
    assert above[1] == "small at 1 s in ort: 74.0 % of the time, 25.0 % of the FLOPs"
    assert disproportionate(FOUND[:4]) == [
        "all sizes are within their share of the FLOPs and 8 points"
    ]


def test_the_table_of_a_file_is_that_of_the_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    extra = {
        "bench": "latency", "subnet": "s", "runtime": "et", "precision": "fp32", "seconds": 4.0,
        "params": 7, "flops": 9.0, "flops_share": 1.0, "share": 1.0,
    }  # fmt: skip
    stats = {"min": 0.004, "median": 9.0}
    other = {"extra_info": {}, "stats": stats}
    path = tmp_path / "results.json"
    path.write_text(json.dumps({"benchmarks": [{"extra_info": extra, "stats": stats}, other]}))
    main(Arguments(path, plot=tmp_path / "plot.png"))
    expected = records([benchmark(extra)])
    assert capsys.readouterr().out.splitlines()[:2] == latency_table(expected)
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    "content", ["", "[]", '{"benchmarks": [{"extra_info": {"bench": "latency"}}]}']
)
def test_a_file_of_something_else_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "results.json"
    path.write_text(content)
    with pytest.raises(UserError, match="holds no results of the latency bench"):
        main(Arguments(path))
    path.write_text('{"benchmarks": []}')
    with pytest.raises(UserError, match="holds no results of the latency bench"):
        main(Arguments(path))
