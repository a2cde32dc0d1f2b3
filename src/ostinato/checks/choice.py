"""The whole text is one of several: a label, a yes or no, a value of the item."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import ClassVar

from ostinato.checks.base import POSSIBLE, BaseCheck, column_texts, impossible, quoted
from ostinato.checks.constraint_spec import BLANK, ConstraintSpec, one_of
from ostinato.checks.normal_form import decomposed, decomposed_start
from ostinato.loop import Item, PrefixVerdict, RequiredText, Verdict


@dataclass(frozen=True, kw_only=True)
class Choice(BaseCheck):
    """The whole text is one of `texts` or of the `column`'s values, without outer white space."""

    kind: ClassVar[str] = "choice"

    texts: tuple[str, ...] = ()
    column: str = ""
    case: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.strings("texts") and not self.column:
            raise self.refuse("texts", "given, or 'column'", (), "List the choices.")

    @property
    def columns(self) -> tuple[str, ...]:
        """The column that holds choices."""
        return (self.column,) if self.column else ()

    def check_item(self, item: Item) -> None:
        """Raise `InputError` where the column holds no texts."""
        self._choices(item)

    def judge(self, output: object, item: Item) -> Verdict:
        """Compare the whole text with each choice."""
        passed = _holds(self._sorted(item), self._fold(self.text(output).strip()))
        return self.verdict(passed, "" if passed else self._message(self._choices(item)))

    def check_prefix(self, output: object, item: Item) -> PrefixVerdict:
        """Impossible where no choice starts with the prefix."""
        text, choices = self.text(output), self._sorted(item)
        prefix = decomposed_start(text.lstrip(), self.case)
        at = bisect_left(choices, prefix)
        starts_one = at < len(choices) and choices[at].startswith(prefix)
        if starts_one or _holds(choices, prefix.rstrip()):  # a choice with white space after it
            return POSSIBLE
        message = self._message(self._choices(item))
        return impossible(message, len(text) - len(text.lstrip()), len(text))

    def required_text(self, output: object, item: Item) -> RequiredText | None:
        """Return the choices while the text is empty."""
        return None if self.text(output).strip() else RequiredText(self._choices(item))

    def constraint_specs(self, item: Item) -> tuple[ConstraintSpec, ...]:
        """Return the choices as one pattern; none where the item has no choice."""
        return _specs(self._choices(item), self.case)

    def _choices(self, item: Item) -> tuple[str, ...]:
        return self.texts + (column_texts(self.name, item, self.column) if self.column else ())

    def _sorted(self, item: Item) -> Sequence[str]:
        """Return the choices as they are compared, sorted: there may be thousands of them."""
        return _folded(self._choices(item), self.case) if self.column else self._own_sorted

    @cached_property
    def _own_sorted(self) -> Sequence[str]:
        return _folded(self.texts, self.case)

    def _fold(self, text: str) -> str:
        return decomposed(text, self.case)

    def _message(self, choices: tuple[str, ...]) -> str:
        if not choices:
            return f"There is no choice: the column '{self.column}' is empty."
        return f"Write {quoted(choices)}, nothing else."


@lru_cache(maxsize=64)  # prefix verdicts are computed at every token
def _folded(choices: tuple[str, ...], case: bool) -> Sequence[str]:
    return sorted({decomposed(choice.strip(), case) for choice in choices})


@lru_cache(maxsize=64)
def _specs(choices: tuple[str, ...], case: bool) -> tuple[ConstraintSpec, ...]:
    texts = [choice.strip() for choice in choices]
    if not texts:
        return ()
    pattern = f"{BLANK}*{one_of(texts, case)}{BLANK}*"
    return (ConstraintSpec("regex", pattern, hints=(min(texts, key=len),)),)


def _holds(choices: Sequence[str], text: str) -> bool:
    at = bisect_left(choices, text)
    return at < len(choices) and choices[at] == text
