"""N-gram models against KenLM's own estimator, and what every model must obey."""

import math
from collections.abc import Callable
from pathlib import Path

import kenlm
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ortho_edge import lm
from ortho_edge.cli import UserError
from ortho_edge.ngrams import NgramModel, estimate
from tests.tolerances import tolerance

TEXT = """\
THE CAT SAT ON THE MAT
THE CAT SAT
A CAT SAT ON A HAT
THE HAT SAT ON THE CAT
A MAT ON THE CAT
THE DOG SAT ON THE HAT ON THE MAT
A DOG
""".splitlines()

# lmplz of KenLM 0.3.0, `-o 3 --discount_fallback`: discounts of its own for 3-grams alone.
LMPLZ = """\
\\data\\
ngram 1=11
ngram 2=23
ngram 3=28

\\1-grams:
-1.3405385	<unk>	0
0	<s>	-0.36797678
-0.70371646	</s>	0
-1.049974	THE	-0.30103
-1.049974	CAT	-0.30103
-0.9551876	SAT	-0.30103
-0.9551876	ON	-0.30103
-1.049974	MAT	-0.30103
-1.049974	A	-0.30103
-1.049974	HAT	-0.30103
-1.049974	DOG	-0.30103

\\2-grams:
-0.5758052	CAT </s>	0
-0.6499206	SAT </s>	0
-0.45728278	MAT </s>	0
-0.5758052	HAT </s>	0
-0.45728278	DOG </s>	0
-0.40302745	<s> THE	-0.1360277
-0.3772005	ON THE	-0.08788072
-0.6752405	THE CAT	-0.058513623
-0.77066326	A CAT	-0.23044896
-0.41030934	CAT SAT	-0.108623415
-0.6534486	HAT SAT	-0.23044896
-0.5150815	DOG SAT	-0.23044896
-0.36609262	SAT ON	-0.04717907
-0.5150815	MAT ON	-0.23044896
-0.6534486	HAT ON	-0.23044896
-0.89313436	THE MAT	-0.058513623
-0.77066326	A MAT	-0.23044896
-0.5977653	<s> A	-0.23044896
-0.77066326	ON A	-0.23044896
-0.6752405	THE HAT	-0.23044896
-0.77066326	A HAT	-0.23044896
-0.89313436	THE DOG	-0.23044896
-0.77066326	A DOG	-0.23044896

\\3-grams:
-0.5299889	THE CAT </s>
-0.5063767	CAT SAT </s>
-0.36554003	THE MAT </s>
-0.24566077	A HAT </s>
-0.2097094	A DOG </s>
-0.4243796	SAT ON THE
-0.18139952	MAT ON THE
-0.18139952	HAT ON THE
-0.66263014	<s> THE CAT
-0.65178126	ON THE CAT
-0.6252532	<s> A CAT
-0.39492244	THE CAT SAT
-0.19351353	A CAT SAT
-0.47297588	THE HAT SAT
-0.228095	THE DOG SAT
-0.37755996	CAT SAT ON
-0.17720337	HAT SAT ON
-0.17720337	DOG SAT ON
-0.228095	A MAT ON
-0.47297588	THE HAT ON
-0.80998063	ON THE MAT
-0.6252532	<s> A MAT
-0.5933727	SAT ON A
-0.58944005	<s> THE HAT
-0.5936496	ON THE HAT
-0.29114673	ON A HAT
-0.7067549	<s> THE DOG
-0.6252532	<s> A DOG

\\end\\
"""


def parsed(lines: str) -> dict[str, tuple[float, float]]:
    """Log-probability and back-off of every n-gram of an ARPA text."""
    fields = [line.split("\t") for line in lines.splitlines() if "\t" in line]
    return {gram: (float(p), float(*rest or [0])) for p, gram, *rest in fields}


def test_the_estimates_are_those_of_lmplz() -> None:
    ours, theirs = parsed("".join(estimate(TEXT, 3).arpa())), parsed(LMPLZ)
    assert ours.keys() == theirs.keys()
    for gram, (probability, backoff) in theirs.items():
        assert ours[gram] == (
            near(probability, "lmplz"),
            near(backoff, "lmplz"),
        )


def near(value: float, name: str):
    entry = tolerance(name)
    return pytest.approx(value, rel=entry["rtol"], abs=entry["atol"])


def probability(model: NgramModel, context: tuple[str, ...], word: str) -> float:
    """Of a word after a context, by the definition of back-off."""
    context = context[-(model.order - 1) :] if model.order > 1 else ()
    factor = 1.0
    while (*context, word) not in model.probabilities[len(context)]:
        factor *= model.backoffs[len(context) - 1].get(context, 1.0)
        context = context[1:]
    return factor * model.probabilities[len(context)][*context, word]


words = st.lists(st.sampled_from("ABCDE"), min_size=1, max_size=7).map(" ".join)


@settings(deadline=None)
@given(st.lists(words, min_size=1, max_size=8), st.integers(2, 4))
def test_after_every_context_the_probabilities_add_up_to_one(text: list[str], order: int) -> None:
    model = estimate(text, order)
    vocabulary = [gram[0] for gram in model.probabilities[0] if gram != ("<s>",)]
    contexts = [(), ("<s>",), ("A",), ("B", "A"), ("<s>", "C"), ("E", "E", "E")]
    contexts += [gram[:-1] for gram in model.probabilities[-1]]
    for context in contexts:
        total = sum(probability(model, context, word) for word in vocabulary)
        assert total == near(1.0, "float64_reordered")


def test_kenlm_reads_the_file_and_scores_as_defined(tmp_path: Path) -> None:
    model = estimate(TEXT, 3)
    path = tmp_path / "lm.arpa"
    path.write_text("".join(model.arpa()))
    loaded = kenlm.Model(str(path))
    for sentence in ("THE CAT SAT ON A DOG", "HAT HAT", "A HAT ON A CAT"):
        history, total = ("<s>",), 0.0
        for word in (*sentence.split(), "</s>"):
            total += math.log10(probability(model, history, word))
            history = (*history, word)
        assert loaded.score(sentence) == near(total, "float32_reordered")


def test_what_cannot_be_estimated_is_named() -> None:
    for text, order, message in (
        ([], 3, "the text holds no word"),
        ([" "], 3, "the text holds no word"),
        (["A <s> B"], 3, "the text holds '<s>'"),
        (["A"], 1, "the order must be from 2 to 6, not 1"),
    ):
        with pytest.raises(UserError, match=message):
            estimate(text, order)


def test_the_command_leaves_held_out_sentences_out(
    tmp_path: Path, command: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "plain.txt").write_text("the cat sat\nA hat\n\na cat sat\n")
    (tmp_path / "table.tsv").write_text("utterance\ttext\tage\nu1\tA HAT\t3\nu2\tTHE HAT\t4\n")
    (tmp_path / "test.tsv").write_text("utterance\ttext\nu1\tA HAT\n")
    out = tmp_path / "lm.arpa"
    texts = [str(tmp_path / "plain.txt"), str(tmp_path / "table.tsv")]
    held_out = ["--held-out", str(tmp_path / "test.tsv")]
    status = command(lm, "--text", *texts, *held_out, "--out", str(out), "--order", "2")
    assert status == 0
    said = capsys.readouterr().out
    assert "plain.txt: 3 sentences, 1 left out as held out" in said
    assert "table.tsv: 2 sentences, 1 left out as held out" in said
    expected = estimate(["THE CAT SAT", "A CAT SAT", "THE HAT"], 2)
    assert out.read_text() == "".join(expected.arpa())


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("none.txt", None, "no text at"),
        ("bad.txt", b"\xff\xe9", "bad.txt, line 1: byte 0xff is no UTF-8"),
        ("bad.tsv", b"a\tb\n1\t2\n", "no column text: it has a, b;"),
        ("short.tsv", b"a\ttext\n1\n", "line 2 has 1 of 2 fields: no text"),
        ("empty.txt", b"\n", "holds no word"),
    ],
)
def test_the_command_names_the_mistake_and_writes_nothing(
    name: str,
    content: bytes | None,
    message: str,
    tmp_path: Path,
    command: Callable[..., int],
    capsys: pytest.CaptureFixture[str],
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    out = tmp_path / "lm.arpa"
    assert command(lm, "--text", str(tmp_path / name), "--out", str(out)) == 2
    error = capsys.readouterr().err.strip().splitlines()
    assert len(error) == 1
    assert message in error[0]
    assert not out.exists()
