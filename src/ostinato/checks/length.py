"""Length in words, characters, sentences or tokens.

Every count can only grow with the text: a prefix that is too long stays too long.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal

from ostinato.arguments import counted
from ostinato.checks.base import CERTAIN, POSSIBLE, BaseCheck, impossible
from ostinato.checks.constraint_spec import ANY, BLANK, ConstraintSpec
from ostinato.checks.segments import (
    BLANKS,
    IDEOGRAPHS,
    MARKS,
    count_words,
    counted_words,
    sentence_starts,
)
from ostinato.loop import Item, PrefixVerdict, Span, Text, Verdict

Unit = Literal["words", "characters", "sentences", "tokens"]


def tokens(text: str) -> list[int] | None:
    """Return where each token starts, without the end of text; None for a text without tokens."""
    if not text:
        return []
    if not isinstance(text, Text) or not text.tokens:
        return None
    return list(text.starts[: len(text.tokens) - bool(text.ended)])


_STARTS: dict[str, Callable[[str], list[int] | None]] = {
    "words": counted_words,
    "characters": lambda text: list(range(len(text))),
    "sentences": sentence_starts,
    "tokens": tokens,
}


@dataclass(frozen=True, kw_only=True)
class Length(BaseCheck):
    """At least `min` and at most `max` units: words, characters, sentences or tokens.

    What a word and a sentence is stands in `ostinato.checks.segments`.
    """

    kind: ClassVar[str] = "length"

    min: int | None = None
    max: int | None = None
    unit: Unit = "words"

    def __post_init__(self) -> None:
        super().__post_init__()
        for bound in ("min", "max"):
            value = getattr(self, bound)
            if value is not None and value < 0:
                raise self.refuse(bound, "0 or more", value, "Give a count.")
        self.bounds()

    def judge(self, output: object, item: Item) -> Verdict:
        """Count the units; the span of a text that is too long starts at the first surplus one."""
        text = self.text(output)
        count, surplus = self._count(text)
        if count is None:
            return self.error(
                f"A length in tokens must be judged on a generated text (ostinato.loop.Text), got "
                f"{type(output).__name__}. Use words for texts from elsewhere."
            )
        if self.max is not None and count > self.max:
            span = Span(surplus, len(text))
            return self.verdict(False, self._too_long(count), self.max / count, span)
        if self.min is not None and count < self.min:
            message = (
                f"Add {counted(self.min - count, self.unit)}: the text has {count}, "
                f"at least {self.min} are wanted."
            )
            return self.verdict(False, message, count / self.min)
        return self.verdict(True)

    def check_prefix(self, output: object, item: Item) -> PrefixVerdict:
        """Impossible above `max`; certain from `min` on where there is no `max`."""
        text = self.text(output)
        count, surplus = self._count(text)
        if count is None:
            return POSSIBLE
        if self.max is not None:
            if count > self.max:
                return impossible(self._too_long(count), surplus, len(text))
            return POSSIBLE  # never certain: more text may exceed it
        return CERTAIN if self.min is not None and count >= self.min else POSSIBLE

    def constraint_specs(self, item: Item) -> tuple[ConstraintSpec, ...]:
        """Return the texts of this length in words or characters; none for the other units."""
        least, most = self.min or 0, "" if self.max is None else self.max
        if self.unit == "characters":
            return (ConstraintSpec("regex", f"(?s:.{{{least},{most}}})"),)
        if self.unit != "words":
            return ()
        patterns = [] if self.max is None else [_at_most(self.max)]
        if least:
            patterns.append(_at_least(least))
        return tuple(ConstraintSpec("regex", pattern) for pattern in patterns)

    def _count(self, text: str) -> tuple[int | None, int]:
        """Return the count (None: unknown), and where the first surplus unit starts (0: none)."""
        if self.unit == "characters":
            return len(text), self.max or 0
        if self.unit == "words":  # the starts take longer than their number, and are seldom needed
            count = count_words(text)
            if self.max is None or count <= self.max:
                return count, 0
        starts = _STARTS[self.unit](text)
        if starts is None:
            return None, 0
        over = self.max is not None and len(starts) > self.max
        return len(starts), starts[self.max] if over and self.max is not None else 0

    def _too_long(self, count: int) -> str:
        assert self.max is not None
        return (
            f"Cut {counted(count - self.max, self.unit)}: the text has {count}, "
            f"at most {self.max} are allowed."
        )


_GAP = f"[{BLANKS}{MARKS}]"
_LETTER = f"[^{BLANKS}{MARKS}{IDEOGRAPHS}]"
_WORD = f"{_LETTER}[^{BLANKS}{IDEOGRAPHS}]*"


def _at_most(count: int) -> str:
    """Return the pattern of the texts with at most `count` words."""
    return f"{_GAP}*(?:(?:[{IDEOGRAPHS}]|{_WORD}){_GAP}*){{0,{count}}}"


def _at_least(count: int) -> str:
    """Return the pattern of the texts with at least `count` words, and all with ideographs.

    Where words need no white space between them, an expression cannot tell one from two.
    """
    spaced = f"(?:{_WORD}{BLANK}{_GAP}*){{{count - 1}}}{_LETTER}{ANY}"
    return f"{_GAP}*{spaced}|{ANY}[{IDEOGRAPHS}]{ANY}"
