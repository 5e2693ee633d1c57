"""Batches: the same for any number of loader processes and after a resume, and nothing lost."""

import logging
import pickle
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from lhotse import CutSet
from lhotse.cut import Cut

from ortho_edge.data import corpora, examples, waveforms
from ortho_edge.data.augmentation import Augmentation
from ortho_edge.data.dataset import Batch, evaluation_batches, training_batches
from ortho_edge.data.digit_strings import digit_strings
from ortho_edge.data.features import fbank
from ortho_edge.data.waveforms import WaveformCache, each_cut, load_cut
from ortho_edge.tokens import character_tokens
from tests.data.generated import TEXTS, kaldi_fbank, speech_like
from tests.tolerances import tolerance

WORDS = character_tokens(words=sorted({word for text in TEXTS for word in text.split()}))
LETTERS = character_tokens(characters="ABCDEFGHIJKLMNOPQRSTUVWXYZ")


def train(cuts: CutSet, **changes) -> list[Batch]:
    settings = {
        "tokens": WORDS,
        "augmentation": Augmentation(),
        "max_duration": 5.0,
        "num_buckets": 3,
        "seed": 1,
        "epoch": 0,
    }
    return list(training_batches(cuts, **(settings | changes)))


def ids(batches: Iterable[Batch]) -> list[str]:
    return [name for batch in batches for name in batch.cut_ids]


def skips(batches: Iterable[Batch]) -> Counter:
    return sum((Counter(batch.skipped) for batch in batches), Counter())


def assert_identical(one: list[Batch], other: list[Batch]) -> None:
    assert [b.cut_ids for b in one] == [b.cut_ids for b in other]
    for a, b in zip(one, other, strict=True):
        for name in ("features", "feature_lengths", "tokens", "token_lengths"):
            assert torch.equal(getattr(a, name), getattr(b, name)), name
        assert (a.texts, a.speakers, a.position) == (b.texts, b.speakers, b.position)
        assert a.skipped == b.skipped


def test_an_epoch_has_every_cut_once_in_padded_batches(corpus: CutSet) -> None:
    batches = train(corpus)
    assert sorted(ids(batches)) == sorted(cut.id for cut in each_cut(corpus))
    assert len(batches) > 3
    texts = {cut.id: cut.supervisions[0].text for cut in each_cut(corpus)}
    durations = {cut.id: cut.duration for cut in each_cut(corpus)}
    for number, batch in enumerate(batches, start=1):
        assert batch.position == number
        size = len(batch.cut_ids)
        assert batch.features.shape == (size, int(batch.feature_lengths.max()), 80)
        assert batch.features.dtype == torch.float32
        assert batch.texts == tuple(texts[name] for name in batch.cut_ids)
        tokens = batch.tokens.split(batch.token_lengths.tolist())
        assert [WORDS.decode(row.tolist()) for row in tokens] == list(batch.texts)
        for name in ("feature_lengths", "tokens", "token_lengths"):
            assert getattr(batch, name).dtype == torch.int64
        for row, length in zip(batch.features, batch.feature_lengths, strict=True):
            assert not row[length:].any()
            assert row[:length].any(dim=1).all()
        assert max(durations[name] for name in batch.cut_ids) * size <= 5.0


def test_without_augmentation_features_are_those_of_the_audio(corpus: CutSet) -> None:
    cuts = {cut.id: cut for cut in each_cut(corpus)}
    for batch in train(corpus, augmentation=Augmentation.none()):
        for name, row, length in zip(
            batch.cut_ids, batch.features, batch.feature_lengths, strict=True
        ):
            assert torch.equal(row[:length], fbank(load_cut(cuts[name])))
            expected = torch.from_numpy(kaldi_fbank(load_cut(cuts[name])))
            torch.testing.assert_close(row[:length], expected, **tolerance("fbank"))


def test_epochs_and_seeds_differ_in_order_and_augmentation(corpus: CutSet) -> None:
    first, same, next_epoch, other_seed = (
        train(corpus), train(corpus), train(corpus, epoch=1), train(corpus, seed=2),
    )  # fmt: skip
    assert_identical(first, same)
    for other in (next_epoch, other_seed):
        assert ids(first) != ids(other)
        assert sorted(ids(first)) == sorted(ids(other))

        def rows(batches: list[Batch]) -> dict[str, torch.Tensor]:
            return {
                name: row for b in batches for name, row in zip(b.cut_ids, b.features, strict=True)
            }

        before, after = rows(first), rows(other)
        assert not any(
            before[name].shape == after[name].shape and torch.equal(before[name], after[name])
            for name in before
        )


@pytest.mark.parametrize("cached", [False, True])
def test_loader_processes_change_nothing(corpus: CutSet, cached: bool) -> None:
    expected = train(corpus, cache=WaveformCache() if cached else False)
    for num_workers in (1, 2):
        cache = WaveformCache() if cached else False
        assert_identical(train(corpus, num_workers=num_workers, cache=cache), expected)


def test_loading_uses_one_thread_and_leaves_the_callers_number_alone(
    corpus: CutSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = train(corpus)
    seen = set()

    def watching_load(cut: Cut, cache: WaveformCache | None) -> np.ndarray:
        seen.add(torch.get_num_threads())
        return load_cut(cut, cache)

    monkeypatch.setattr(examples, "load_cut", watching_load)
    torch.set_num_threads(2)
    try:
        assert_identical(train(corpus), expected)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)
    assert seen == {1}


@pytest.mark.parametrize("num_workers", [0, 1])
@pytest.mark.parametrize("done", [1, 3])
def test_resuming_gives_the_rest_of_the_epoch_without_loading_what_was_used(
    corpus: CutSet, monkeypatch: pytest.MonkeyPatch, done: int, num_workers: int
) -> None:
    whole = train(corpus)
    loaded = []

    def recording_load(cut: Cut, cache: WaveformCache | None) -> np.ndarray:
        loaded.append(cut.id)
        return load_cut(cut, cache)

    monkeypatch.setattr(examples, "load_cut", recording_load)
    rest = train(corpus, skip_batches=whole[done - 1].position, num_workers=num_workers)
    assert_identical(rest, whole[done:])
    if num_workers == 0:
        assert loaded == ids(whole[done:])


def test_resuming_after_passed_over_batches_loses_and_repeats_nothing(
    corpus_folder: Path, corpus: CutSet
) -> None:
    for index in (0, 4, 7, 11):
        (corpus_folder / "audio" / f"u{index}.flac").write_text("broken")
    # One cut in each batch, so that a broken file empties its batch.
    cuts = CutSet.from_cuts(short_cut(corpus, f"u{index}", 0.6) for index in range(12))
    whole = train(cuts, max_duration=0.7)
    assert [len(batch.cut_ids) for batch in whole] == [1] * 8
    assert whole[-1].position > len(whole)
    carried = [batch.skipped.get("unreadable", 0) for batch in whole]
    assert sum(carried) == whole[-1].position - 8
    for done in range(8):
        rest = train(cuts, max_duration=0.7, skip_batches=whole[done].position)
        assert_identical(rest, whole[done + 1 :])


def break_corpus(folder: Path) -> None:
    """u0 gone, u1 cut off, u2 no audio, u3 NaN, u4 too short, after the cuts were made."""
    audio = folder / "audio"
    (audio / "u0.flac").unlink()
    short, rate = soundfile.read(audio / "u1.flac", frames=3000)
    soundfile.write(audio / "u1.flac", short, rate)
    (audio / "u2.flac").write_text("this is no audio")
    with (audio / "u3.flac").open("wb") as file:
        poisoned = np.full(19200, np.nan, np.float32)
        soundfile.write(file, poisoned, 16000, format="WAV", subtype="FLOAT")


def short_cut(cuts: CutSet, name: str, seconds: float) -> Cut:
    return cuts[name].truncate(duration=seconds, preserve_id=True)


@pytest.mark.parametrize("num_workers", [0, 1])
def test_unusable_cuts_are_skipped_and_counted_by_reason(
    corpus_folder: Path, corpus: CutSet, num_workers: int
) -> None:
    cuts = [cut for cut in each_cut(corpus) if cut.id != "u4"]
    cuts.append(short_cut(corpus, "u4", 0.02))
    cuts[5] = cuts[5].map_supervisions(lambda s: s.transform_text(lambda _: "SIX EIGHT"))
    cuts[6] = cuts[6].map_supervisions(lambda s: s.transform_text(lambda _: " ".join(["ONE"] * 80)))
    break_corpus(corpus_folder)
    batches = train(
        CutSet.from_cuts(cuts), augmentation=Augmentation.none(), num_workers=num_workers
    )
    assert sorted(ids(batches)) == ["u10", "u11", "u5", "u8", "u9"]
    assert skips(batches) == {
        "missing": 1,
        "truncated": 1,
        "unreadable": 1,
        "non-finite": 1,
        "too short": 1,
        "unrepresentable text": 1,
        "too short for its text": 1,
    }


def test_ctc_feasibility_is_decided_to_the_frame(tmp_path: Path) -> None:
    # 64 frames become 16 in the encoder: 15 letters and the start of a word fit, and no repeat.
    (tmp_path / "audio").mkdir()
    soundfile.write(tmp_path / "audio" / "a.flac", speech_like(0.64, 16000, seed=0), 16000)

    def number_of_batches(text: str) -> int:
        table = f"utterance\tspeaker\tseconds\ttext\na\tann\t1\t{text}\n"
        (tmp_path / "transcripts.tsv").write_text(table)
        settings = {"tokens": LETTERS, "augmentation": Augmentation.none()}
        return len(train(corpora.synthetic(tmp_path), **settings))

    assert number_of_batches("ABCDEFGHIJKLMNO") == 1
    assert number_of_batches("ABCDEFGHIJKLMNOP") == 0
    assert number_of_batches("AACDEFGHIJKLMNO") == 0


def test_what_is_skipped_after_the_last_batch_is_logged(
    corpus_folder: Path, corpus: CutSet, caplog: pytest.LogCaptureFixture
) -> None:
    for path in (corpus_folder / "audio").iterdir():
        path.unlink()
    with caplog.at_level(logging.WARNING):
        assert train(corpus) == []
    assert "'missing': 12" in caplog.text


@pytest.mark.parametrize("num_cuts", [0, 1, 2])
@pytest.mark.parametrize("lazy", [False, True])
def test_tiny_and_lazy_sets_work(corpus: CutSet, tmp_path: Path, num_cuts: int, lazy: bool) -> None:
    cuts = CutSet.from_cuts(list(each_cut(corpus))[:num_cuts])
    if lazy:
        cuts.to_file(tmp_path / "cuts.jsonl")
        cuts = CutSet.from_jsonl_lazy(tmp_path / "cuts.jsonl")
    for batches in (
        train(cuts, num_buckets=10),
        list(evaluation_batches(cuts, tokens=WORDS, max_duration=5.0)),
    ):
        assert sorted(ids(batches)) == [f"u{i}" for i in range(num_cuts)]


@pytest.mark.parametrize("rate", [8000, 11025, 44100])
def test_audio_at_another_rate_is_resampled(tmp_path: Path, rate: int) -> None:
    (tmp_path / "audio").mkdir()
    stereo = np.repeat(speech_like(1.0, rate, seed=1)[:, None], 2, axis=1)
    soundfile.write(tmp_path / "audio" / "a.flac", stereo, rate)
    (tmp_path / "transcripts.tsv").write_text("utterance\tspeaker\tseconds\ttext\na\tann\t1\tONE\n")
    [batch] = evaluation_batches(corpora.synthetic(tmp_path), tokens=WORDS, max_duration=5.0)
    assert batch.feature_lengths.tolist() == [100]
    expected = fbank(speech_like(1.0, 16000, seed=1))
    # Only the noise and what lies above the lower rate's band differ: compare the loud low bins.
    assert (batch.features[0, 5:95, :40] - expected[5:95, :40]).abs().median() < 0.5


def test_evaluation_keeps_every_readable_cut_from_short_to_long(
    corpus_folder: Path, corpus: CutSet
) -> None:
    cuts = [cut for cut in each_cut(corpus) if cut.id != "u4"]
    cuts.append(short_cut(corpus, "u4", 0.02))
    cuts[5] = cuts[5].map_supervisions(lambda s: s.transform_text(lambda _: "SIX EIGHT"))
    cuts[6] = cuts[6].map_supervisions(lambda s: s.transform_text(lambda _: " ".join(["ONE"] * 80)))
    break_corpus(corpus_folder)
    settings = {"tokens": WORDS, "max_duration": 5.0}
    batches = list(evaluation_batches(CutSet.from_cuts(cuts), **settings))
    assert ids(batches) == ["u4", "u5", "u6", "u7", "u8", "u9", "u10", "u11"]
    assert skips(batches) == {"missing": 1, "truncated": 1, "unreadable": 1, "non-finite": 1}
    texts = [text for batch in batches for text in batch.texts]
    lengths = [int(n) for batch in batches for n in batch.token_lengths]
    # u6 has a word without a symbol, u7 too many words for its frames; both stay.
    assert (texts[2], lengths[2]) == ("SIX EIGHT", 0)
    assert (texts[3], lengths[3]) == (" ".join(["ONE"] * 80), 80)
    # u4 is shorter than a window and is heard with silence after it.
    assert int(batches[0].feature_lengths[0]) == 3
    again = list(evaluation_batches(CutSet.from_cuts(cuts), num_workers=1, **settings))
    assert_identical(batches, again)


def test_a_cache_decodes_once_and_stays_within_its_size(
    corpus: CutSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded = []

    def recording_read(path: str, **stretch: Any) -> tuple[np.ndarray, int]:
        decoded.append(path)
        return original(path, **stretch)

    original = waveforms.read_samples
    monkeypatch.setattr(waveforms, "read_samples", recording_read)
    cache = WaveformCache()
    first, second = train(corpus, cache=cache), train(corpus, epoch=1, cache=cache)
    assert sorted(ids(first)) == sorted(ids(second))
    assert len(decoded) == len(set(decoded)) == len(cache) == 12
    total = sum(cut.num_samples or 0 for cut in each_cut(corpus))
    assert cache.num_bytes == 2 * total

    small = WaveformCache(max_bytes=total)
    assert_identical(train(corpus, cache=small), first)
    assert 0 < small.num_bytes <= total
    assert len(small) < 12
    assert len(pickle.loads(pickle.dumps(cache))) == 0


def test_cached_audio_is_the_audio_to_16_bits(corpus: CutSet) -> None:
    cache = WaveformCache()
    for cut in each_cut(corpus):
        for _ in range(2):
            assert np.abs(load_cut(cut, cache) - load_cut(cut)).max() <= 1 / 32767


def test_what_only_lhotse_can_do_is_left_to_lhotse(corpus: CutSet) -> None:
    noisy = corpus["u9"].mix(corpus["u3"], offset_other_by=0.2, snr=10)
    assert np.allclose(load_cut(noisy), noisy.load_audio()[0])
    plain = corpus["u9"].truncate(offset=0.31, duration=0.7)
    assert np.array_equal(load_cut(plain), plain.load_audio()[0])
    padded = corpus["u0"].pad(duration=1.5)
    assert np.array_equal(load_cut(padded), padded.load_audio()[0])


def test_a_batch_moves_to_a_device(corpus: CutSet) -> None:
    batch = train(corpus)[0].to("meta")
    assert batch.features.device.type == batch.tokens.device.type == "meta"


@pytest.mark.data
def test_real_speech_is_batched_like_a_device_hears_it(data_root: Path) -> None:
    cuts = CutSet.from_cuts(list(each_cut(corpora.speechocean762(data_root, "dev")))[:12])
    by_id = {cut.id: cut for cut in each_cut(cuts)}
    batches = list(evaluation_batches(cuts, tokens=LETTERS, max_duration=20.0))
    assert sorted(ids(batches)) == sorted(by_id)
    for batch in batches:
        for name, row, length in zip(
            batch.cut_ids, batch.features, batch.feature_lengths, strict=True
        ):
            expected = torch.from_numpy(kaldi_fbank(load_cut(by_id[name])))
            torch.testing.assert_close(row[:length], expected, **tolerance("fbank_floor"))


@pytest.mark.data
def test_real_digit_strings_train_without_loss(data_root: Path) -> None:
    digits = corpora.fsdd(data_root, takes=range(5, 10))
    strings = digit_strings(digits, num_strings=60, min_digits=3, max_digits=8, seed=0)
    words = character_tokens(words=sorted({s.supervisions[0].text or "" for s in each_cut(digits)}))
    batches = train(strings, tokens=words, max_duration=40.0)
    assert len(ids(batches)) == 60
    assert skips(batches) == {}
