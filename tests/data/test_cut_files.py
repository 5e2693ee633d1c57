"""Prepared cuts are what `prepare` writes and nothing else: no command, no URL."""

import copy
import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ortho_edge.cli import UserError
from ortho_edge.data.cut_files import read_cuts
from ortho_edge.data.waveforms import each_cut

CUT: dict[str, Any] = {
    "id": "14-100-0002", "start": 0.5, "duration": 1.4, "channel": 0,
    "supervisions": [
        {"id": "14-100-0002", "recording_id": "14-100", "start": 0.0, "duration": 1.4,
         "channel": 0, "text": "THE TEN", "language": "English", "speaker": "14"}
    ],
    "recording": {
        "id": "14-100", "sources": [{"type": "file", "channels": [0], "source": "/a/14-100.flac"}],
        "sampling_rate": 16000, "num_samples": 32000, "duration": 2.0, "channel_ids": [0],
    },
    "type": "MonoCut",
}  # fmt: skip


def written(folder: Path, *cuts: object) -> Path:
    path = folder / "dev.jsonl.gz"
    path.write_bytes(gzip.compress("".join(json.dumps(one) + "\n" for one in cuts).encode()))
    return path


def test_cuts_come_back_lazily(tmp_path: Path) -> None:
    other = copy.deepcopy(CUT) | {"id": "other"}
    cuts = read_cuts(written(tmp_path, CUT, other))
    assert cuts.is_lazy
    for _ in range(2):
        first, second = each_cut(cuts)
        assert first.to_dict() == CUT
        assert second.id == "other"


def at(*path: str | int) -> Callable[[dict], Any]:
    def holder(cut: dict) -> Any:
        for step in path:
            cut = cut[step]
        return cut

    return holder


SOURCE, RECORDING = at("recording", "sources", 0), at("recording")
SUPERVISION = at("supervisions", 0)


@pytest.mark.parametrize(
    ("place", "change", "message"),
    [
        (SOURCE, {"type": "command", "source": "touch executed"}, "source.type must be file"),
        (SOURCE, {"type": "url", "source": "http://127.0.0.1/"}, "source.type must be file"),
        (at(), {"type": "MixedCut"}, "type must be MonoCut"),
        (at(), {"features": {"storage_type": "numpy_files"}}, "unknown entry 'features'"),
        (at(), {"custom": {"target": {"array": {}}}}, "unknown entry 'custom'"),
        (RECORDING, {"transforms": [{"name": "Speed"}]}, "unknown entry 'transforms'"),
        (at(), {"duration": float("nan")}, "duration must be a finite number"),
        (at(), {"duration": 1.6}, "it ends at 2.1 s of a recording of 2 s"),
        (at(), {"start": -1}, "start must be a finite number"),
        (at(), {"channel": 1}, "channel 1 is not in the recording"),
        (at(), {"supervisions": []}, "supervisions must hold one, not 0"),
        (at(), {"id": "a\nb"}, "id holds a control character"),
        (RECORDING, {"sampling_rate": 1}, "sampling_rate must be a whole number from 1000"),
        (RECORDING, {"num_samples": 2**40}, "are not the recording's|are not 2 s"),
        (SUPERVISION, {"text": None}, "text must be a text"),
        (SUPERVISION, {"duration": 3.0}, "supervision is longer than its cut"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named_with_its_line(
    place: Callable[[dict], dict], change: dict, message: str, tmp_path: Path
) -> None:
    wrong = copy.deepcopy(CUT) | {"id": "wrong"}
    place(wrong).update(change)
    path = written(tmp_path, CUT, wrong)
    with pytest.raises(UserError, match=message) as refused:
        list(each_cut(read_cuts(path)))
    assert f"{path}, line 2" in str(refused.value)


def test_a_cut_stands_there_once(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="line 2: the cut '14-100-0002' stands there twice"):
        list(each_cut(read_cuts(written(tmp_path, CUT, CUT))))


def test_noise_needs_no_text(tmp_path: Path) -> None:
    noise = CUT | {"supervisions": []}
    (cut,) = each_cut(read_cuts(written(tmp_path, noise), with_text=False))
    assert not cut.supervisions


@pytest.mark.parametrize(
    "content", [b"", gzip.compress(b"{}\n")[:-9], b"plain", gzip.compress(b"[]")]
)
def test_no_file_of_cuts_is_one_line(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "dev.jsonl.gz"
    path.write_bytes(content)
    if content:
        with pytest.raises(UserError, match="dev"):
            list(each_cut(read_cuts(path)))
    else:
        assert list(each_cut(read_cuts(path))) == []
