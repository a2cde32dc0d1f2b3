"""Length in words, characters, sentences or tokens.

Every count can only grow with the text: a prefix that is too long stays too long.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal

from ostinato.arguments import counted
from ostinato.checks.base import CERTAIN, POSSIBLE, BaseCheck, impossible
from ostinato.checks.constraint_spec import BLANK, INK, ConstraintSpec
from ostinato.loop import Item, PrefixVerdict, Span, Text, Verdict

Unit = Literal["words", "characters", "sentences", "tokens"]

_WORD = re.compile(r"\S+")
# A sentence starts at the first character, and after a full stop and white space unless a lower
# case letter follows ("9 a.m. on Friday"). After a Chinese or Japanese full stop it starts at once.
_BREAK = re.compile(r"[.!?…]+[\"'”’)\]]*\s+(?=\S)|[。！？]+[”’」』)\]]*\s*(?=[^\s。！？”’」』)\]])")
_TITLES = re.compile(r"\b(?:Mr|Mrs|Ms|Dr|Prof|St|No|vs|e\.g|i\.e)$", re.IGNORECASE)


def words(text: str) -> list[int]:
    """Return where each word (a run without white space) starts."""
    return [match.start() for match in _WORD.finditer(text)]


def sentences(text: str) -> list[int]:
    """Return where each sentence starts."""
    first = _WORD.search(text)
    if first is None:
        return []
    starts = [first.start()]
    for match in _BREAK.finditer(text, first.start()):
        end = match.end()
        latin = match.group()[0] in ".!?…"
        if not latin or not (
            text[end].islower() or _TITLES.search(text, max(0, match.start() - 6), match.start())
        ):
            starts.append(end)
    return starts


def tokens(text: str) -> list[int] | None:
    """Return where each token starts, without the end of text; None for a text without tokens."""
    if not text:
        return []
    if not isinstance(text, Text) or not text.tokens:
        return None
    return list(text.starts[: len(text.tokens) - bool(text.ended)])


_STARTS: dict[str, Callable[[str], list[int] | None]] = {
    "words": words,
    "characters": lambda text: list(range(len(text))),
    "sentences": sentences,
    "tokens": tokens,
}


@dataclass(frozen=True, kw_only=True)
class Length(BaseCheck):
    """At least `min` and at most `max` units: words, characters, sentences or tokens."""

    kind: ClassVar[str] = "length"

    min: int | None = None
    max: int | None = None
    unit: Unit = "words"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.unit not in _STARTS:
            raise self.refuse("unit", "one of " + ", ".join(_STARTS), self.unit, "Use one of them.")
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
        if most == 0:
            return (ConstraintSpec("regex", f"{BLANK}*"),)
        more = "" if self.max is None else self.max - 1
        words = f"{INK}+(?:{BLANK}+{INK}+){{{max(0, least - 1)},{more}}}"
        inner = words if least else f"(?:{words})?"
        return (ConstraintSpec("regex", f"{BLANK}*{inner}{BLANK}*"),)

    def _count(self, text: str) -> tuple[int | None, int]:
        """Return the count (None: unknown), and where the first surplus unit starts (0: none)."""
        if self.unit == "characters":
            return len(text), self.max or 0
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
