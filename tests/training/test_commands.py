"""The commands train and evaluate: what they write, and one line for every mistake."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from ortho_edge import evaluate, train


def test_evaluate_a_folder_of_audio(
    command: Callable[..., int],
    checkpoint: Path,
    tones: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out, picture = tmp_path / "rates.json", tmp_path / "rates.png"
    status = command(
        evaluate, str(checkpoint), "--set", str(tones), "--out", str(out), "--plot", str(picture)
    )
    assert status == 0
    results = json.loads(out.read_text())["results"]
    assert list(results) == ["s100", "s050"]
    assert results["s100"]["groups"] == {}, "no age is stated"
    assert len(results["s100"]["transcripts"]) == 48
    assert results["s050"]["flops_share"] < 0.7 < results["s100"]["flops_share"]
    words = sum(len(one["reference"].split()) for one in results["s100"]["transcripts"])
    assert results["s100"]["words"] == words
    assert picture.read_bytes().startswith(b"\x89PNG")
    table = capsys.readouterr().out
    assert "s050" in table
    assert "48 utterances" in table


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--set", "digit/unseen"], "unknown set 'digit/unseen'"),
        (["--set", "nowhere"], "unknown set 'nowhere'"),
        (["--set", "digits/unseen", "--data", "/nowhere"], "/nowhere"),
        (["--set", "digits/unseen", "--subnets", "s07"], "no size 's07'; known: s100, s050"),
    ],
)
def test_evaluate_names_the_mistake(
    command: Callable[..., int],
    checkpoint: Path,
    arguments: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert command(evaluate, str(checkpoint), *arguments) == 2
    error = capsys.readouterr().err.strip().splitlines()
    assert len(error) == 1
    assert message in error[0]


def test_evaluate_takes_the_sizes_that_are_named(
    command: Callable[..., int], checkpoint: Path, tones: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(evaluate, str(checkpoint), "--set", str(tones), "--subnets", "s050") == 0
    table = capsys.readouterr().out
    assert "s050" in table
    assert "s100" not in table


def test_evaluate_without_a_model(
    command: Callable[..., int], tones: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "rates.json"
    status = command(evaluate, str(tmp_path / "no-model"), "--set", str(tones), "--out", str(out))
    assert status == 2
    assert "no-model" in capsys.readouterr().err
    assert not out.exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["digit"], "unknown recipe 'digit'; known: digits"),
        (["digits", "--steps", "1"], "--steps is 1; it must be from 2 to 1000000000"),
        (["digits", "--accumulate", "0"], "--accumulate is 0; it must be from 1 to 10000"),
        (["digits", "--distill", "-1"], "--distill is -1.0; it must be from 0 to 1000000"),
        (
            ["digits", "--front-end-chunks", "0"],
            "--front-end-chunks is 0; it must be from 1 to 4096",
        ),
        (
            ["digits", "--front-end-chunks", "5"],
            "the 32 channels of the front end's last convolution do not divide into 5 chunks",
        ),
        (["digits", "--data", "/nowhere"], "/nowhere"),
        (["librispeech_512", "--data", "."], "python -m ortho_edge.prepare librispeech"),
        (["digits", "--device", "abacus"], "abacus"),
    ],
)
def test_train_names_the_mistake_and_writes_nothing(
    command: Callable[..., int],
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert command(train, *arguments) == 2
    error = capsys.readouterr().err.strip().splitlines()
    assert len(error) == 1
    assert message in error[0]
    assert not list(tmp_path.iterdir())


def test_train_names_an_unknown_choice_of_kernels(
    command: Callable[..., int],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ORTHO_KERNELS", "cuda")
    assert command(train, "digits") == 2
    error = capsys.readouterr().err.strip().splitlines()
    assert error == ["error: ORTHO_KERNELS is 'cuda'; choose from auto, triton, reference"]
    assert not list(tmp_path.iterdir())
