"""Rules: a pattern on a column selects a canned reply, or another prompt. Knows no model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import regex

from ostinato.checks import Template, shown
from ostinato.errors import InputError, ItemError
from ostinato.refine.prompts import PromptTemplate

SECONDS = 1.0
"""The time limit of one pattern on one item: backtracking patterns can take forever."""


@dataclass(frozen=True, kw_only=True)
class Rule:
    """Where `pattern` is found in `column`, `reply` is the answer or `prompt` replaces the job's
    prompt.

    Exactly one of the two is set. Case is ignored unless `case` is true.
    """

    name: str
    column: str
    pattern: str
    reply: Template | None = None
    prompt: PromptTemplate | None = None
    case: bool = False

    def __post_init__(self) -> None:
        if (self.reply is None) == (self.prompt is None):
            raise InputError(
                f"The rule '{self.name}' must have a reply or a prompt, got "
                f"{'neither' if self.reply is None else 'both'}. Keep one of them."
            )
        try:
            _ = self._compiled
        except regex.error as error:
            wrong = InputError(
                f"The pattern of the rule '{self.name}' must be a regular expression, got "
                f"{self.pattern!r}: {error}. Fix it."
            )
            wrong.key = "pattern"
            raise wrong from None

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that every item must have, those of the reply or prompt included."""
        inner = self.reply.columns if self.reply else self.prompt.columns if self.prompt else ()
        return tuple(dict.fromkeys([self.column, *inner]))

    def fits(self, columns: Mapping[str, object]) -> bool:
        """Return whether the pattern is found. Raises `ItemError` after `SECONDS`."""
        text = shown(columns.get(self.column))
        try:
            return self._compiled.search(text, timeout=SECONDS) is not None
        except TimeoutError:
            raise ItemError(
                f"The pattern of the rule '{self.name}' must be searched within {SECONDS:g} s, and "
                "took longer. Simplify it."
            ) from None

    @cached_property
    def _compiled(self) -> regex.Pattern[str]:
        # `regex`, as `re` has no time limit. Its own cache of compiled patterns costs 20 us a call.
        return regex.compile(self.pattern, 0 if self.case else regex.IGNORECASE)


def first_rule(rules: Sequence[Rule], columns: Mapping[str, object]) -> Rule | None:
    """Return the first rule that fits an item, None if none does."""
    return next((rule for rule in rules if rule.fits(columns)), None)
