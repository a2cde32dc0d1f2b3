"""Words, phrases and patterns that a text must or must not contain, also from the item's column."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal

from ostinato.checks.base import CERTAIN, POSSIBLE, BaseCheck, column_texts, impossible, quoted
from ostinato.checks.constraint_spec import ConstraintSpec, containing
from ostinato.checks.patterns import Finder, finder, traits_of
from ostinato.loop import Item, PrefixVerdict, RequiredText, Verdict

Alternatives = tuple[tuple[str, ...], tuple[str, ...]]
"""Texts and patterns, any of which is enough."""


@dataclass(frozen=True, kw_only=True)
class _Words(BaseCheck):
    """What to search for, and how: `whole` words, and upper and lower `case` apart."""

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
                "texts", "given, or 'patterns' or 'column'", (), "List what to search for."
            )
        self._finder((self.texts, self.patterns))  # raises for a wrong pattern

    @property
    def columns(self) -> tuple[str, ...]:
        """The column whose texts are searched for."""
        return (self.column,) if self.column else ()

    def check_item(self, item: Item) -> None:
        """Raise `InputError` where the column holds no texts."""
        self._column_texts(item)

    def _finder(self, alternatives: Alternatives) -> Finder:
        return finder(
            *alternatives, case=self.case, whole=self.whole, where=f"the check '{self.name}'"
        )

    def _containing(self, alternatives: Alternatives, surely: bool = False) -> str | None:
        """Return the pattern of whole texts that contain one; None where it looks around."""
        if not all(traits_of(pattern).knows_prefixes for pattern in alternatives[1]):
            return None
        return containing(*alternatives, case=self.case, whole=self.whole, surely=surely)

    def _column_texts(self, item: Item) -> tuple[str, ...]:
        return column_texts(self.name, item, self.column) if self.column else ()


@dataclass(frozen=True, kw_only=True)
class Contains(_Words):
    """Contains one of the texts, patterns or column's values (`mode="any"`), or each (`"all"`).

    The values of a column are alternatives: one of them is enough in both modes. An empty column
    adds nothing.
    """

    kind: ClassVar[str] = "contains"

    mode: Literal["any", "all"] = "any"

    def judge(self, output: object, item: Item) -> Verdict:
        """Search for all that is needed; the score is the share of it that was found."""
        text, needs = self.text(output), list(self._needs(item))
        missing = [need for need in needs if self._finder(need).find(text) is None]
        if not missing:
            return self.verdict(True)
        score = 1 - len(missing) / len(needs)
        return self.verdict(False, " ".join(map(_missing, missing)), score)

    def check_prefix(self, output: object, item: Item) -> PrefixVerdict:
        """Certain once all that is needed was found and no continuation can change it."""
        text = self.text(output)
        done = all(self._finder(need).find_closed(text) for need in self._needs(item))
        return CERTAIN if done else POSSIBLE

    def required_text(self, output: object, item: Item) -> RequiredText | None:
        """Return the first missing texts; what matches a pattern is not known."""
        text = self.text(output)
        for need in self._needs(item):
            if need[0] and self._finder(need).find(text) is None:
                return RequiredText(need[0])
        return None

    def constraint_specs(self, item: Item) -> tuple[ConstraintSpec, ...]:
        """Return a language for each need, except where a pattern looks around."""
        found = ((need, self._containing(need)) for need in self._needs(item))
        return tuple(
            ConstraintSpec("regex", pattern, hints=need[0][:1])
            for need, pattern in found
            if pattern
        )

    def _needs(self, item: Item) -> Iterator[Alternatives]:
        """Yield what must be found; every one is needed."""
        column = self._column_texts(item)
        if self.mode == "any":
            if self.texts or self.patterns or column:
                yield self.texts + column, self.patterns
            return
        yield from (((text,), ()) for text in self.texts)
        yield from (((), (pattern,)) for pattern in self.patterns)
        if column:
            yield column, ()


@dataclass(frozen=True, kw_only=True)
class Excludes(_Words):
    """Contains none of the texts, patterns and column's values."""

    kind: ClassVar[str] = "excludes"

    def judge(self, output: object, item: Item) -> Verdict:
        """Search for what is forbidden; the span is the first of it."""
        text = self.text(output)
        span = self._finder(self._forbidden(item)).find(text)
        if span is None:
            return self.verdict(True)
        return self.verdict(False, _forbidden(text[slice(*span)]), span=span)

    def check_prefix(self, output: object, item: Item) -> PrefixVerdict:
        """Impossible once something forbidden is complete and cannot become another word."""
        text = self.text(output)
        span = self._finder(self._forbidden(item)).find_closed(text)
        return POSSIBLE if span is None else impossible(_forbidden(text[slice(*span)]), *span)

    def constraint_specs(self, item: Item) -> tuple[ConstraintSpec, ...]:
        """Return the texts with nothing forbidden, except for patterns that look around."""
        texts, patterns = self._forbidden(item)
        # Without the others the language is wider than the check, which still judges in the end.
        plain = tuple(pattern for pattern in patterns if traits_of(pattern).knows_prefixes)
        pattern = self._containing((texts, plain), surely=True)
        return (ConstraintSpec("regex", pattern, no=True),) if pattern else ()

    def _forbidden(self, item: Item) -> Alternatives:
        return self.texts + self._column_texts(item), self.patterns


def _missing(need: Alternatives) -> str:
    texts, patterns = need
    alternatives = [quoted(texts)] if texts else []
    alternatives += [f"something that matches {pattern}" for pattern in patterns]
    return f"Say {' or '.join(alternatives)}: it is missing."


def _forbidden(found: str) -> str:
    return f'Leave out "{found}": it is not allowed.'
