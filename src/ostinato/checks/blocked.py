"""Blocked topics: a list of words and phrases with wildcards."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from ostinato.checks.base import POSSIBLE, BaseCheck, impossible
from ostinato.checks.constraint_spec import ConstraintSpec, containing
from ostinato.checks.normal_form import normalized
from ostinato.checks.patterns import Finder, finder
from ostinato.loop import Item, PrefixVerdict, Verdict
from ostinato.text_files import read_text


@dataclass(frozen=True, kw_only=True)
class Blocked(BaseCheck):
    """Contains none of `words`; `*` stands for any letters (`refund*`: refunds, refunded).

    Characters that are not shown, such as a zero-width space within a word, hide none.
    """

    kind: ClassVar[str] = "blocked"

    words: tuple[str, ...]
    case: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        for word in self.strings("words"):
            shown = normalized(word, visible=True).text
            if not shown.replace("*", "").strip():
                raise self.refuse(
                    "words", "more than wildcards", word, "It would block every word."
                )
        if not self.words:
            raise self.refuse("words", "at least one word", (), "List what is blocked.")

    def judge(self, output: object, item: Item) -> Verdict:
        """Search for a blocked word; the span is the first one."""
        text = self.text(output)
        span = self._finder().find(text)
        if span is None:
            return self.verdict(True)
        return self.verdict(False, _message(text[slice(*span)]), span=span)

    def check_prefix(self, output: object, item: Item) -> PrefixVerdict:
        """Impossible once a blocked word is complete and cannot become another word."""
        text = self.text(output)
        span = self._finder().find_closed(text)
        return POSSIBLE if span is None else impossible(_message(text[slice(*span)]), *span)

    def constraint_specs(self, item: Item) -> tuple[ConstraintSpec, ...]:
        """Return the texts without a blocked word."""
        # A mask sees characters that are not shown in the text, so the words must be without.
        words = [normalized(word, case=self.case, visible=True).text for word in self.words]
        pattern = containing(words, case=self.case, wild=True, surely=True)
        return (ConstraintSpec("regex", pattern, no=True),)

    def _finder(self) -> Finder:
        return finder(self.words, case=self.case, wild=True, visible=True)


def read_words(path: Path) -> tuple[str, ...]:
    """Read a word list: one word or phrase per line, `#` starts a comment."""
    lines = read_text(path).split("\n")
    words = (line.partition("#")[0].strip() for line in lines)
    return tuple(word for word in words if word)


def _message(found: str) -> str:
    return f'Do not speak of "{found}": it is blocked.'
