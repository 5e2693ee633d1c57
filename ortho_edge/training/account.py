"""What of a set was scored and what was not: every utterance and every second, with its reason."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from lhotse import CutSet

from ortho_edge.cli import UserError
from ortho_edge.data.examples import Limits, Omission, SkipError, reference
from ortho_edge.data.transcripts import unspelled
from ortho_edge.data.waveforms import each_cut, unreadable_because
from ortho_edge.tokens import Tokens

MISTAKES = (
    "missing",
    "unreadable",
    "empty",
    "truncated",
    "non-finite",
    "no reference",
)
"""Reasons that are faults of the set; `too short` and `too long` are limits of a model."""
_NAMED = 20
_FIRST = 3


@dataclass(frozen=True, kw_only=True)
class Account:
    """An account of a set.

    Attributes:
        scored: Utterances that were transcribed.
        seconds: Their audio.
        omitted: The others.
        unspelled: What of the references the symbols cannot spell, and how often; it is scored,
            and no model can be right there.
        unspelled_utterances: The utterances that it is in.
        spelled_words: Words of the references that symbols spell.
    """

    scored: int
    seconds: float
    omitted: tuple[Omission, ...]
    unspelled: Mapping[str, int]
    unspelled_utterances: tuple[str, ...]
    spelled_words: int

    @classmethod
    def of(
        cls,
        references: Mapping[str, str],
        seconds: float,
        omitted: Sequence[Omission],
        tokens: Tokens,
    ) -> "Account":
        """The account of references by utterance, and of what was left out."""
        symbols: Counter[str] = Counter()
        utterances, spelled = [], 0
        for name, text in references.items():
            wrong = unspelled(text, tokens)
            symbols.update(wrong)
            utterances += [name] * bool(wrong)
            if wrong:
                spelled += sum(not unspelled(word, tokens) for word in text.split())
            else:
                spelled += len(text.split())
        return cls(
            scored=len(references),
            seconds=seconds,
            omitted=tuple(sorted(omitted, key=lambda one: one.utterance)),
            unspelled=dict(symbols.most_common()),
            unspelled_utterances=tuple(utterances),
            spelled_words=spelled,
        )

    def lines(self) -> list[str]:
        """The account in a few lines of text, names included."""
        if not self.omitted:
            lines = [f"scored: all {self.scored} utterances, {self.seconds:.1f} s"]
        else:
            total = self.scored + len(self.omitted)
            lines = [
                f"scored: {self.scored} of {total} utterances, {self.seconds:.1f} s; "
                f"not scored: {len(self.omitted)}, {_seconds(self.omitted)}"
            ]
        for reason, some in self._by_reason().items():
            names = _names([one.utterance for one in some], _NAMED)
            lines.append(f"not scored, {reason}: {len(some)}, {_seconds(some)}: {names}")
        if self.unspelled:
            counts = ", ".join(f"{one!r} {n}" for one, n in list(self.unspelled.items())[:_NAMED])
            more = ", ..." * (len(self.unspelled) > _NAMED)
            lines.append(
                f"scored, but not to be spelled by the model's symbols: {counts}{more}, in "
                f"{len(self.unspelled_utterances)} references: "
                f"{_names(self.unspelled_utterances, _NAMED)}"
            )
        return lines

    def facts(self) -> dict[str, Any]:
        """The whole account for JSON."""
        return {
            "scored_utterances": self.scored,
            "scored_seconds": self.seconds,
            "not_scored_utterances": len(self.omitted),
            "not_scored_seconds": sum(one.seconds or 0.0 for one in self.omitted),
            "not_scored": [asdict(one) for one in self.omitted],
            "unspelled": dict(self.unspelled),
            "unspelled_utterances": list(self.unspelled_utterances),
        }

    def check(
        self,
        name: str,
        *,
        skip_unreadable: bool = False,
        option: str | None = "--skip-unreadable",
    ) -> None:
        """Checks that the set has no fault.

        Args:
            name: Of the set.
            skip_unreadable: Whether utterances without readable audio or reference are left out.
            option: Which option of the command does so, if one does.

        Raises:
            UserError: Without `skip_unreadable` such an utterance is there; or of the references
                no word can be spelled.
        """
        wrong = [one for one in self.omitted if one.reason in MISTAKES]
        if wrong and not skip_unreadable:
            reasons = Counter(one.reason for one in wrong)
            counts = ", ".join(f"{count} {reason}" for reason, count in reasons.items())
            first = "; ".join(one.detail for one in wrong[:_FIRST])
            more = "; ..." * (len(wrong) > _FIRST)
            hint = f"; {option} leaves them out" if option else ""
            raise UserError(
                f"set {name!r}: {len(wrong)} of {self.scored + len(self.omitted)} utterances "
                f"cannot be scored ({counts}): {first}{more}{hint}"
            )
        if self.unspelled and not self.spelled_words:
            raise UserError(
                f"set {name!r}: the model's symbols spell no word of the references; "
                f"they lack {', '.join(map(repr, list(self.unspelled)[:_NAMED]))}"
            )

    def _by_reason(self) -> dict[str, list[Omission]]:
        found: dict[str, list[Omission]] = {}
        for one in self.omitted:
            found.setdefault(one.reason, []).append(one)
        return dict(sorted(found.items()))


def foreseen(cuts: CutSet, tokens: Tokens, limits: Limits) -> Account:
    """What the account of a set will say at the least, before anything of it is decoded.

    Faults that show in tables and headers end an evaluation before it has begun.
    """
    omitted, texts, seconds = [], {}, 0.0
    for cut in each_cut(cuts):
        try:
            texts[cut.id] = reference(cut, tokens, limits)
            if (error := unreadable_because(cut)) is not None:
                raise SkipError(error.reason, str(error))
            seconds += cut.duration
        except SkipError as error:
            texts.pop(cut.id, None)
            omitted.append(Omission.of(cut, error))
    return Account.of(texts, seconds, omitted, tokens)


def _seconds(omitted: Sequence[Omission]) -> str:
    known = sum(one.seconds for one in omitted if one.seconds is not None)
    unknown = sum(one.seconds is None for one in omitted)
    return f"{known:.1f} s" + f" and {unknown} of unknown length" * bool(unknown)


def _names(names: Sequence[str], most: int) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
