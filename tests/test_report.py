"""The command report: one page that needs nothing else, and one line for every mistake."""

import html
import json
import re
import sys
import xml.etree.ElementTree as ElementTree
from base64 import b64decode
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest

from ortho_edge import report
from ortho_edge.checkpoint import load_checkpoint, save_checkpoint, shipped_checkpoint
from ortho_edge.cli import run
from ortho_edge.reporting.figures import moving_average
from ortho_edge.training.metrics import METRICS
from tests.export.tiny import tiny_checkpoint
from tests.training.conftest import write_tones

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Command:
    """Runs the command in this process: status, what it printed and what it complained of."""

    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["report", *arguments])
        status = 0
        try:
            run(report.main, report.Arguments, prog="report")
        except SystemExit as stop:
            status = int(stop.code or 0)
        captured = capfd.readouterr()
        return status, captured.out, captured.err

    return call


class Page(HTMLParser):
    """Rows of all tables, pictures and whatever names something outside the file."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.pictures: dict[str, str] = {}
        self.tags: set[str] = set()
        self._cell = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        if tag == "tr":
            self.rows.append([])
        self._cell = tag in ("td", "th")
        if tag == "img":
            values = dict(attrs)
            self.pictures[values["alt"] or ""] = values["src"] or ""

    def handle_endtag(self, tag: str) -> None:
        self._cell = False

    def handle_data(self, data: str) -> None:
        if self._cell:
            self.rows[-1].append(data)


@pytest.fixture
def reported(command: Command, tmp_path: Path) -> Callable[..., Page]:
    """The page that the command writes for these arguments."""

    def call(*arguments: str) -> Page:
        out = tmp_path / "report.html"
        status, printed, _ = command(*arguments, "--out", str(out))
        assert (status, printed) == (0, f"written: {out}\n")
        return Page(out.read_text("utf-8"))

    return call


def test_the_page_holds_the_numbers_of_the_shipped_checkpoint(
    reported: Callable[..., Page],
) -> None:
    page = reported("--device", "pixel8", "raspberrypi5")
    checkpoint = load_checkpoint(shipped_checkpoint())
    space = checkpoint.supernet.space
    for one in checkpoint.subnets:
        rows = [row for row in page.rows if row[0] == one.name]
        assert len(rows) == 3, "sizes, and costs on each of two devices"
        assert rows[0][1] == f"{space.cost(one.subnet, 'params'):,.0f}"
        assert rows[0][3] == f"{len(one.subnet.kept)} of {len(space)}"
        assert rows[0][4] == rows[1][1] == f"{one.metrics['dev_wer']:.2f}"
    assert set(page.pictures) == {
        "Dev WER against costs on devices",
        "What each size keeps, by block and module",
        "Training",
    }


def test_the_page_needs_nothing_else(reported: Callable[..., Page]) -> None:
    page = reported()
    assert not page.tags & {"script", "link", "iframe", "object"}
    for source in page.pictures.values():
        kind, _, content = source.partition(";base64,")
        assert kind == "data:image/svg+xml"
        assert ElementTree.fromstring(b64decode(content)).tag.endswith("svg")


def test_another_checkpoint_is_compared_with_the_first(
    reported: Callable[..., Page], tmp_path: Path
) -> None:
    tones = write_tones(tmp_path / "tones", 6)
    checkpoint = load_checkpoint(shipped_checkpoint())
    save_checkpoint(checkpoint, tmp_path / "again" / "checkpoint")
    page = reported(
        str(shipped_checkpoint()), str(tmp_path / "again" / "checkpoint"), "--set", str(tones)
    )
    names = [row[0] for row in page.rows]
    assert names.count("digits") == names.count("again") == len(checkpoint.subnets)
    overlap = [row for row in page.rows if row[:2] == ["s045", "1.00"]]
    assert len(overlap) == 1, "a copy keeps the same"
    assert f"WER against FLOPs on {tones}" in page.pictures


def test_names_cannot_become_markup(reported: Callable[..., Page], tmp_path: Path) -> None:
    name = "<script>alert(1)</script>"
    checkpoint = load_checkpoint(shipped_checkpoint())
    save_checkpoint(checkpoint, tmp_path / name.replace("/", "|"))
    page = reported(str(tmp_path / name.replace("/", "|")))
    assert "script" not in page.tags
    text = (tmp_path / "report.html").read_text("utf-8")
    assert html.escape("<script>") in text


def test_a_checkpoint_without_a_log_has_no_curves(
    reported: Callable[..., Page], tmp_path: Path
) -> None:
    save_checkpoint(load_checkpoint(shipped_checkpoint()), tmp_path / "model")
    assert "Training" not in reported(str(tmp_path / "model")).pictures


def test_an_elastic_front_end_is_named(reported: Callable[..., Page], tmp_path: Path) -> None:
    save_checkpoint(tiny_checkpoint(front_end_chunks=3), tmp_path / "model")
    page = reported(str(tmp_path / "model"), "--device", "pixel8")
    assert "What each size keeps, by block and module" in page.pictures
    assert "front end in 3 chunks, " in (tmp_path / "report.html").read_text("utf-8")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "no checkpoint folder at nowhere"),
        (["--device", "pixel99"], "unknown device 'pixel99'"),
        (["--set", "digits"], "unknown set 'digits'"),
        (["--out", "."], "--out must be a file"),
    ],
)
def test_a_mistake_gets_one_line(command: Command, arguments: list[str], message: str) -> None:
    status, printed, complaint = command(*arguments)
    assert (status, printed) == (2, "")
    assert message in complaint.splitlines()[-1]
    assert not re.search("Traceback", complaint)


@pytest.mark.parametrize("line", ["{", "[]", '{"loss": 1}', '{"step": 1, "loss": "high"}'])
def test_a_damaged_log_is_named(command: Command, tmp_path: Path, line: str) -> None:
    log = json.dumps({"step": 0, "loss/full": 1.0}) + "\n" + line + "\n"
    checkpoint = load_checkpoint(shipped_checkpoint())
    save_checkpoint(checkpoint, tmp_path / "model", {METRICS: log.encode()})
    status, _, complaint = command(str(tmp_path / "model"))
    assert status == 2
    assert "metrics.jsonl line 2 is no logged step" in complaint


def test_a_moving_average_keeps_constants_and_shortens_at_the_ends() -> None:
    assert moving_average([2.0] * 100).tolist() == pytest.approx([2.0] * 100)
    values = [float(number) for number in range(100)]
    # Four points in a hundred: two on either side.
    assert moving_average(values)[[0, 50, 99]].tolist() == pytest.approx([1.0, 50.0, 98.0])
