"""What a text must say and must not say: words, phrases, patterns, or a column of the item."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal

from ostinato.checks.base import CERTAIN, POSSIBLE, BaseCheck, column_texts, impossible, quoted
from ostinato.checks.constraint_spec import ConstraintSpec, saying
from ostinato.checks.patterns import Finder, Hold, finder, hold_of
from ostinato.loop import Item, PrefixVerdict, RequiredText, Verdict

Need = tuple[tuple[str, ...], tuple[str, ...]]
"""Texts and patterns of which one is to be found."""


@dataclass(frozen=True, kw_only=True)
class _Words(BaseCheck):
    texts: tuple[str, ...] = ()
    patterns: tuple[str, ...] = ()
    column: str = ""
    case: bool = False
    whole: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        self.strings("texts")
        self.strings("patterns")
        if not (self.texts or self.patterns or self.column):
            raise self.refuse(
                "texts", "given, or 'patterns' or 'column'", (), "Name what is to be looked for."
            )
        self._finder((self.texts, self.patterns))

    @property
    def columns(self) -> tuple[str, ...]:
        """The column whose texts are looked for."""
        return (self.column,) if self.column else ()

    def _finder(self, need: Need) -> Finder:
        return finder(*need, case=self.case, whole=self.whole, where=f"the check '{self.name}'")

    def _saying(self, need: Need) -> str | None:
        """Return the pattern of texts that say what is needed, where it can be told exactly."""
        if any(hold_of(pattern) is not Hold.ALWAYS for pattern in need[1]):
            return None
        return saying(*need, case=self.case, whole=self.whole)

    def _asked(self, item: Item) -> tuple[str, ...]:
        return column_texts(self.name, item, self.column) if self.column else ()


@dataclass(frozen=True, kw_only=True)
class Contains(_Words):
    """Says one of the texts, patterns or column's values (`mode="any"`), or every one (`"all"`).

    The values of a column are alternatives: one of them is enough in both modes. An item whose
    column is empty asks for nothing.
    """

    kind: ClassVar[str] = "contains"

    mode: Literal["any", "all"] = "any"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.mode not in ("any", "all"):
            raise self.refuse("mode", "'any' or 'all'", self.mode, "Choose one.")

    def judge(self, output: object, item: Item) -> Verdict:
        """Look for what is needed; the message names what is missing."""
        text, needs = self.text(output), list(self._needs(item))
        missing = [need for need in needs if self._finder(need).find(text) is None]
        if not missing:
            return self.verdict(True)
        score = 1 - len(missing) / len(needs)
        return self.verdict(False, " ".join(map(_say, missing)), score)

    def check_prefix(self, output: object, item: Item) -> PrefixVerdict:
        """Certain once all that is needed stands and cannot be undone."""
        text = self.text(output)
        done = all(self._finder(need).find_closed(text) for need in self._needs(item))
        return CERTAIN if done else POSSIBLE

    def wants(self, output: object, item: Item) -> RequiredText | None:
        """Return the first missing texts; patterns cannot be said."""
        text = self.text(output)
        for need in self._needs(item):
            if need[0] and self._finder(need).find(text) is None:
                return RequiredText(need[0])
        return None

    def languages(self, item: Item) -> tuple[ConstraintSpec, ...]:
        """Return the texts that say each need; a pattern that looks ahead is left out."""
        found = ((need, self._saying(need)) for need in self._needs(item))
        return tuple(
            ConstraintSpec("regex", pattern, hints=need[0][:1])
            for need, pattern in found
            if pattern
        )

    def _needs(self, item: Item) -> Iterator[Need]:
        asked = self._asked(item)
        if self.mode == "any":
            if self.texts or self.patterns or asked:
                yield self.texts + asked, self.patterns
            return
        yield from (((text,), ()) for text in self.texts)
        yield from (((), (pattern,)) for pattern in self.patterns)
        if asked:
            yield asked, ()


@dataclass(frozen=True, kw_only=True)
class Excludes(_Words):
    """Says none of the texts, patterns and column's values."""

    kind: ClassVar[str] = "excludes"

    def judge(self, output: object, item: Item) -> Verdict:
        """Look for what is forbidden; the place is the first of it."""
        text = self.text(output)
        place = self._finder(self._forbidden(item)).find(text)
        if place is None:
            return self.verdict(True)
        return self.verdict(False, _drop(text[slice(*place)]), place=place)

    def check_prefix(self, output: object, item: Item) -> PrefixVerdict:
        """Impossible once something forbidden stands and can no longer become another word."""
        text = self.text(output)
        place = self._finder(self._forbidden(item)).find_closed(text)
        return POSSIBLE if place is None else impossible(_drop(text[slice(*place)]), *place)

    def languages(self, item: Item) -> tuple[ConstraintSpec, ...]:
        """Return the texts that say nothing forbidden; a pattern that looks ahead is left out."""
        texts, patterns = self._forbidden(item)
        plain = tuple(pattern for pattern in patterns if hold_of(pattern) is Hold.ALWAYS)
        pattern = self._saying((texts, plain))
        return (ConstraintSpec("regex", pattern, no=True),) if pattern else ()

    def _forbidden(self, item: Item) -> Need:
        return self.texts + self._asked(item), self.patterns


def _say(need: Need) -> str:
    texts, patterns = need
    ways = [quoted(texts)] if texts else []
    ways += [f"something that matches {pattern}" for pattern in patterns]
    return f"Say {' or '.join(ways)}: it is missing."


def _drop(found: str) -> str:
    return f'Leave out "{found}": it is not allowed.'
