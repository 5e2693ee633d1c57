"""Names that are chosen to break a page or a card are shown as they are."""

import json
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

from ortho_edge.checkpoint import save_checkpoint
from ortho_edge.reporting.page import page
from ortho_edge.reporting.runs import load_run
from ortho_edge.training.metrics import METRICS
from tests.export.tiny import tiny_checkpoint

EVIL = '"><script>alert(1)</script><img src=x onerror=alert(2)>$\\frac$ | `x` [a](javascript:b) & c'


class Tags(HTMLParser):
    """Tags, and attributes that could run or load something."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.dangerous: list[tuple[str, str | None]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.dangerous += [
            (name, value)
            for name, value in attrs
            if name.startswith("on")
            or (
                name in ("src", "href")
                and not (value or "").startswith("data:image/svg+xml;base64")
            )
        ]

    def handle_data(self, data: str) -> None:
        self.text += data


def test_a_report_shows_names_and_runs_nothing(tmp_path: Path) -> None:
    checkpoint = tiny_checkpoint()
    subnets = tuple(replace(one, name=f"{one.name}{EVIL}") for one in checkpoint.subnets)
    provenance = {"recipe": EVIL, "command": EVIL, "versions": {EVIL: EVIL}, "commit": EVIL}
    log = "".join(
        json.dumps({"step": n, f"loss/{EVIL}": 1.0, "loss/full": 2.0}) + "\n" for n in (0, 1)
    )
    save_checkpoint(
        replace(checkpoint, subnets=subnets, provenance=provenance),
        tmp_path / "run",
        {METRICS: log.encode()},
    )
    run = replace(load_run(tmp_path / "run"), name=EVIL)
    parsed = Tags(page([run], [], EVIL))
    assert not parsed.tags & {"script", "iframe", "object", "link", "base"}
    assert not parsed.dangerous
    assert parsed.text.count("<script>alert(1)</script>") >= 6
