"""A regular expression that the whole text must match."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import regex

from ostinato.arguments import counted
from ostinato.checks.base import POSSIBLE, BaseCheck, impossible
from ostinato.checks.constraint_spec import ConstraintSpec, folded
from ostinato.checks.deadline import is_over, left
from ostinato.checks.patterns import (
    JUDGE_SECONDS,
    PREFIX_SECONDS,
    compile_pattern,
    traits_of,
)
from ostinato.loop import Item, PrefixVerdict, Span, Verdict


@dataclass(frozen=True, kw_only=True)
class Regex(BaseCheck):
    """The whole text matches `pattern` (the dialect of the `regex` library)."""

    kind: ClassVar[str] = "regex"

    pattern: str
    case: bool = True
    _compiled: regex.Pattern[str] = field(init=False, repr=False, compare=False)
    _knows_prefixes: bool = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.pattern:
            raise self.refuse(
                "pattern", "a pattern that is not empty", "", "Write what must match."
            )
        compiled = compile_pattern(self.pattern, self.case, f"the check '{self.name}'")
        object.__setattr__(self, "_compiled", compiled)
        knows_prefixes = traits_of(self.pattern).knows_prefixes
        object.__setattr__(self, "_knows_prefixes", knows_prefixes)

    def judge(self, output: object, item: Item) -> Verdict:
        """Match the whole text; the span starts where it leaves the pattern, if that is known."""
        text = self.text(output)
        try:
            matched = self._compiled.fullmatch(text, timeout=left(JUDGE_SECONDS)) is not None
        except TimeoutError:
            if is_over():  # the time of all checks together
                raise
            return self.verdict(
                False,
                "Write a simpler text: the pattern had no answer within "
                f"{counted(JUDGE_SECONDS, 'seconds', 'g')} "
                f"on {counted(len(text), 'characters')} (nested repetitions such as (a+)+ in it?).",
            )
        if matched:
            return self.verdict(True)
        span = None if self._reachable(text) else self._departure(text)
        return self.verdict(False, self._message(), span=span)

    def check_prefix(self, output: object, item: Item) -> PrefixVerdict:
        """Impossible where no match starts with the prefix."""
        text = self.text(output)
        if self._reachable(text):
            return POSSIBLE
        return impossible(self._message(), *self._departure(text))

    def constraint_specs(self, item: Item) -> tuple[ConstraintSpec, ...]:
        """Return the texts that match, unless the pattern looks around or at word edges."""
        if not self._knows_prefixes:
            return ()
        return (ConstraintSpec("regex", folded(self.pattern, self.case)),)

    def _reachable(self, text: str) -> bool:
        """Whether a match may start with the text; True where that is unknown."""
        if not self._knows_prefixes:
            return True
        try:
            seconds = left(PREFIX_SECONDS)
            match = self._compiled.fullmatch(text, partial=True, timeout=seconds)
        except TimeoutError:
            return True
        return match is not None

    def _departure(self, text: str) -> Span:
        """Return the part of an unreachable text that begins where it leaves the pattern."""
        # Bisection: text[:low] is reachable, text[:high] is not, and no prefix is again after that.
        low, high = 0, len(text)
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if self._reachable(text[:middle]) else (low, middle)
        return Span(low, len(text))

    def _message(self) -> str:
        return f"Write a text that as a whole matches {self.pattern}"
