"""A model card shows names and transcripts as they are, whatever they would mean in Markdown."""

import html
import json

import pytest

from ortho_export.card import card, plain
from tests.export.tiny import Exported

EVIL = '"><script>alert(1)</script><img src=x onerror=alert(2)>$\\frac$ | `x` [a](javascript:b) & c'


@pytest.mark.parametrize("text", ["a|b", "<script>", "`x`", "[a](b)", "two\n# lines", "*b*", "a\\"])
def test_text_in_a_card_is_one_line_without_marks(text: str) -> None:
    shown = plain(text)
    assert not set(shown) & set("|<>[]`*\\\n")
    assert html.unescape(shown) == " ".join(text.split())


@pytest.mark.export
def test_a_card_shows_names_and_keeps_its_form(exported: Exported) -> None:
    manifest = json.loads((exported.folder / "manifest.json").read_text("utf-8"))
    honest = card(manifest)
    manifest["device"] = manifest["checkpoint"] = EVIL
    manifest["subnet"]["name"] = EVIL
    manifest["command"] = "export ``` \n# no heading\n<script>"
    manifest["sample"]["heard"] = dict.fromkeys(manifest["sample"]["heard"], f"{EVIL}\n| a | b |")
    manifest["attribution"] = "By <https://example.org/a> and <script>alert(1)</script>"
    found = card(manifest)
    outside, _, fenced = found.partition("````sh\n")
    assert fenced.splitlines()[:2] == ["export ``` # no heading <script>", "````"]
    assert "<script" not in outside
    assert "<https://example.org/a>" in outside
    assert "](javascript" not in outside

    def form(text: str) -> list[tuple[str, int]]:
        return [(line[:2], line.count("|")) for line in text.splitlines() if line[:1] in "#|"]

    assert form(found) == form(honest)
