"""`python -m ortho_edge.evaluate MODEL --set digits/unseen`: word and character error rates."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from ortho_edge.cli import UserError, run
from ortho_edge.options import Count, Threads

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from torch import Tensor

    from ortho_edge.beam_search import BeamSearch
    from ortho_edge.tokens import Tokens
    from ortho_edge.training.corpora import DataOptions
    from ortho_edge.training.evaluation import Encoder, ErrorRates, Transcript

    Features = Callable[[np.ndarray], Tensor]


@dataclass(frozen=True)
class Arguments:
    """WER and CER of every subnet of a checkpoint, or of one exported artefact, on a corpus."""

    model: Annotated[Path, tyro.conf.Positional]
    """A checkpoint folder, a .pte or a .onnx file."""
    set: str
    """RECIPE/SET, such as digits/unseen or digits/dev, or a folder with transcripts.tsv and
    audio/<utterance>.flac (the columns utterance, speaker and text are read)."""
    subnets: tuple[str, ...] = ()
    """Sizes of a checkpoint, by name, such as s100; all by default."""
    data: Path | None = None
    """Folder of the corpora; by default ORTHO_EDGE_DATA, else ../shared/data."""
    synthetic: tuple[Path, ...] = ()
    """Synthesised voices, which are part of digits/dev when training had them."""
    lexicon: Path | None = None
    """Words that are known: pronunciations where a model's symbols are phonemes; where they spell,
    the words to look for with --lm (the first of each line), by default those of the LM."""
    lm: Path | None = None
    """Also decode with this n-gram model, ARPA or KenLM's binary form."""
    lm_weight: float = 0.5
    """Weight of the LM's log-probabilities against the model's."""
    word_score: float = 0.0
    """Added for every word."""
    tune_on: str | None = None
    """Development set, as in --set, on which --lm-weight and --word-score are chosen."""
    tuning_utterances: Count = 500
    """Most utterances of --tune-on; each is decoded ten times for each size."""
    out: Path | None = None
    """Also write the table, every transcript included, as JSON."""
    plot: Path | None = None
    """Also draw WER against FLOPs of a checkpoint's subnets, as PNG."""
    threads: Threads = 1
    """CPU threads."""


def main(arguments: Arguments) -> None:
    """Prints the table and writes the JSON."""
    import torch

    from ortho_edge.training.corpora import DataOptions
    from ortho_edge.training.evaluation import error_rates, transcribe_cuts
    from ortho_edge.training.insertions import inserted_words_per_minute
    from ortho_edge.training.speech_sets import speaker_groups, speech_set

    if arguments.tune_on is not None and arguments.lm is None:
        raise UserError("--tune-on chooses the weights of --lm, which is not named")
    if arguments.plot is not None and not arguments.model.is_dir():
        raise UserError(
            f"--plot compares a checkpoint's subnets; {arguments.model} is one artefact"
        )
    torch.set_num_threads(arguments.threads)
    encoders, tokens, costs, features = _encoders(
        arguments.model, arguments.subnets, arguments.threads
    )
    tokens = _with_words(tokens, arguments)
    options = DataOptions(root=arguments.data, synthetic=arguments.synthetic)
    cuts = speech_set(arguments.set, options)
    transcripts = transcribe_cuts(encoders, cuts, tokens, features=features)
    weights: dict[str, dict[str, float]] = {}
    if arguments.lm is not None:
        searches = _searches(arguments, encoders, tokens, options, features)
        decoders = {name: search.decode for name, search in searches.items()}
        found = transcribe_cuts(encoders, cuts, tokens, features=features, decoders=decoders)
        for name, search in searches.items():
            label = f"{name} + LM"
            transcripts[label], costs[label] = found[name], costs[name]
            weights[label] = search.options.weights()
    try:
        rates = {name: error_rates(texts) for name, texts in transcripts.items()}
    except ValueError as error:
        raise UserError(f"set {arguments.set!r}: {error}") from error
    print(_table(rates, costs))
    for name, one in weights.items():
        print(f"{name}: " + ", ".join(f"{key} {value:g}" for key, value in one.items()))
    groups = speaker_groups(cuts)
    by_group = _by_group(transcripts, groups)
    for group, of_group in by_group.items():
        print(f"\n{group}:\n{_table(of_group, costs)}")
    inserted = inserted_words_per_minute(encoders, tokens, features)
    print(f"\n{_insertions_table(inserted)}")
    if arguments.out is not None:
        facts = {name: {**costs[name], **weights.get(name, {})} for name in rates}
        _write(arguments, rates, by_group, facts, transcripts, inserted)
    if arguments.plot is not None:
        _plot(arguments, {name: rates[name] for name in encoders}, costs)


def _write(
    arguments: Arguments,
    rates: "dict[str, ErrorRates]",
    by_group: "dict[str, dict[str, ErrorRates]]",
    facts: dict[str, dict[str, float]],
    transcripts: "dict[str, list[Transcript]]",
    inserted: dict[str, dict[str, float]],
) -> None:
    from ortho_edge.atomic import write_atomically

    assert arguments.out is not None
    results = {
        name: {
            **asdict(rates[name]),
            **facts[name],
            "groups": {group: asdict(of_group[name]) for group, of_group in by_group.items()},
            "transcripts": [asdict(one) for one in transcripts[name]],
        }
        for name in rates
    }
    record = {
        "model": str(arguments.model),
        "set": arguments.set,
        "results": results,
        "inserted_words_per_minute": inserted,
    }
    write_atomically(arguments.out, json.dumps(record, indent=1) + "\n")
    print(f"written: {arguments.out}")


def _by_group(
    transcripts: "dict[str, list[Transcript]]", groups: dict[str, str]
) -> "dict[str, dict[str, ErrorRates]]":
    """Error rates by group of speakers, then by model."""
    from ortho_edge.training.evaluation import rates_by_group

    by_model = {name: rates_by_group(texts, groups) for name, texts in transcripts.items()}
    return {
        group: {name: rates[group] for name, rates in by_model.items()}
        for group in sorted({group for rates in by_model.values() for group in rates})
    }


def _with_words(tokens: "Tokens", arguments: Arguments) -> "Tokens":
    """Symbols that decode to words."""
    from ortho_edge.lexicon import Lexicon, with_lexicon

    if tokens.phonemic:
        if arguments.lexicon is None:
            raise UserError(f"{arguments.model} recognises phonemes: name their words by --lexicon")
        return with_lexicon(tokens, Lexicon.load(arguments.lexicon))
    if arguments.lexicon is not None and arguments.lm is None:
        raise UserError(f"{arguments.model} spells its words: --lexicon is of use only with --lm")
    return tokens


def _searches(
    arguments: Arguments,
    encoders: "dict[str, Encoder]",
    tokens: "Tokens",
    options: "DataOptions",
    features: "Features",
) -> "dict[str, BeamSearch]":
    """How each encoder is decoded with the language model."""
    from ortho_edge.beam_search import LanguageModel, SearchOptions
    from ortho_edge.lexicon import read_lines
    from ortho_edge.training.lm_decoding import beam_search, tuned
    from ortho_edge.training.speech_sets import development_set

    assert arguments.lm is not None
    try:
        weights = SearchOptions(lm_weight=arguments.lm_weight, word_score=arguments.word_score)
    except ValueError as error:
        raise UserError(str(error)) from error
    words = None
    if arguments.lexicon is not None and not tokens.phonemic:
        lines = read_lines(arguments.lexicon, "lexicon")
        words = dict.fromkeys(line.split()[0].upper() for line in lines if line.strip())
    search = beam_search(tokens, LanguageModel(arguments.lm), weights, words)
    if arguments.tune_on is None:
        return dict.fromkeys(encoders, search)
    cuts = development_set(arguments.tune_on, arguments.set, options)
    return {
        name: tuned(search, encoder, cuts, tokens, features, arguments.tuning_utterances)
        for name, encoder in encoders.items()
    }


def _plot(
    arguments: Arguments, rates: "dict[str, ErrorRates]", costs: dict[str, dict[str, float]]
) -> None:
    from ortho_edge.atomic import write_atomically
    from ortho_edge.plots import error_rates_against_flops, to_png

    shares = {name: cost["flops_share"] for name, cost in costs.items()}
    figure = error_rates_against_flops(rates, shares, f"{arguments.model.name} on {arguments.set}")
    assert arguments.plot is not None
    write_atomically(arguments.plot, to_png(figure))
    print(f"written: {arguments.plot}")


def _encoders(
    model: Path, subnets: tuple[str, ...], threads: int
) -> "tuple[dict[str, Encoder], Tokens, dict[str, dict[str, float]], Features]":
    """Encoders by name, their symbols, what each costs, and what makes their input."""
    if not model.is_dir():
        if subnets:
            raise UserError(f"--subnets names sizes of a checkpoint; {model} is one artefact")
        from ortho_export.artefact import load_artefact

        artefact = load_artefact(model, threads=threads)
        encoder = {model.name: artefact.encode_batch}
        return encoder, artefact.tokens, {model.name: {}}, artefact.features
    from ortho_edge.checkpoint import load_checkpoint
    from ortho_edge.compaction import compact
    from ortho_edge.data.features import fbank

    checkpoint = load_checkpoint(model)
    space = checkpoint.supernet.space
    encoders: dict[str, Encoder] = {}
    costs: dict[str, dict[str, float]] = {}
    known = [one.name for one in checkpoint.subnets]
    if unknown := [name for name in subnets if name not in known]:
        raise UserError(f"{model} has no size {unknown[0]!r}; known: {', '.join(known)}")
    for one in checkpoint.subnets:
        if subnets and one.name not in subnets:
            continue
        encoders[one.name] = compact(checkpoint.supernet, one.subnet, one.head)
        costs[one.name] = {
            "params": space.cost(one.subnet, "params"),
            "flops_share": space.cost(one.subnet, "flops") / space.total_cost("flops"),
        }
    return encoders, checkpoint.tokens, costs, fbank


def _table(rates: "dict[str, ErrorRates]", costs: dict[str, dict[str, float]]) -> str:
    header = (
        f"{'model':<16}{'params':>10}{'FLOPs':>8}{'WER %':>8}  {'95 % interval':<14}{'CER %':>7}"
    )
    lines = [header, "-" * len(header)]
    for name, one in rates.items():
        cost = costs[name]
        params = f"{cost['params'] / 1e6:.2f} M" if "params" in cost else ""
        flops = f"{100 * cost['flops_share']:.0f} %" if "flops_share" in cost else ""
        low, high = one.wer_interval
        lines.append(
            f"{name:<16}{params:>10}{flops:>8}{one.wer:>8.2f}  "
            f"{f'{low:.2f} - {high:.2f}':<14}{one.cer:>7.2f}"
        )
    some = next(iter(rates.values()))
    lines.append(
        f"{some.utterances} utterances, {some.words} words, {some.speakers} speakers; "
        f"interval by drawing {some.resampled}"
    )
    return "\n".join(lines)


def _insertions_table(inserted: dict[str, dict[str, float]]) -> str:
    kinds = list(next(iter(inserted.values())))
    header = "words heard per minute of   " + "".join(f"{kind:>9}" for kind in kinds)
    rows = [
        f"{name:<28}" + "".join(f"{rates[kind]:>9.1f}" for kind in kinds)
        for name, rates in inserted.items()
    ]
    return "\n".join([header, "-" * len(header), *rows])


if __name__ == "__main__":
    run(main, Arguments, prog="python -m ortho_edge.evaluate")
