"""How a text starts and how it ends, without outer white space; what it is compared with, too."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ostinato.checks.base import CERTAIN, POSSIBLE, BaseCheck, impossible, quoted
from ostinato.checks.constraint_spec import ANY, BLANK, ConstraintSpec, one_of
from ostinato.checks.normal_form import can_compose, composes, decomposed, decomposed_start
from ostinato.loop import Item, PrefixVerdict, RequiredText, Verdict


@dataclass(frozen=True, kw_only=True)
class _Affix(BaseCheck):
    """One of several texts at one end of the output."""

    texts: tuple[str, ...]
    case: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.strings("texts"):
            raise self.refuse("texts", "at least one text", (), "List the texts.")

    def _fold(self, text: str) -> str:
        return decomposed(text, self.case)


@dataclass(frozen=True, kw_only=True)
class StartsWith(_Affix):
    """Starts with one of `texts`; upper and lower case are the same unless `case`.

    An accent on a last letter in ASCII makes no difference: "cafe" starts "café".
    """

    kind: ClassVar[str] = "starts_with"

    def judge(self, output: object, item: Item) -> Verdict:
        """Compare the start."""
        text = self._fold(self.text(output).lstrip())
        passed = any(_starts(text, start, whole=True) for start in self._starts())
        return self.verdict(passed, self._message())

    def check_prefix(self, output: object, item: Item) -> PrefixVerdict:
        """Certain once one of the texts is complete, impossible where the prefix deviates."""
        text = self.text(output)
        prefix = decomposed_start(text.lstrip(), self.case)
        starts = self._starts()
        if any(_starts(prefix, start, whole=False) for start in starts):
            return CERTAIN
        if any(start.startswith(prefix) for start in starts):
            return POSSIBLE
        return impossible(self._message(), self._deviation(text, starts), len(text))

    def required_text(self, output: object, item: Item) -> RequiredText | None:
        """Return the texts while the output is empty."""
        return None if self.text(output).strip() else RequiredText(self.texts)

    def constraint_specs(self, item: Item) -> tuple[ConstraintSpec, ...]:
        """Return the pattern of texts with one of the texts at this end."""
        texts = [text.lstrip() for text in self.texts]
        pattern = f"{BLANK}*{one_of(texts, self.case, open_end=True)}{ANY}"
        return (ConstraintSpec("regex", pattern, hints=self.texts[:1]),)

    def _starts(self) -> list[str]:
        return [self._fold(start.lstrip()) for start in self.texts]

    def _deviation(self, text: str, starts: list[str]) -> int:
        """Return where the text leaves the start that it follows longest."""
        blank = len(text) - len(text.lstrip())
        for end in range(blank + 1, len(text)):
            prefix = decomposed_start(text[blank:end], self.case)
            if not any(start.startswith(prefix) for start in starts):
                return end - 1
        return len(text) - 1

    def _message(self) -> str:
        return f"Begin with {quoted(self.texts)}."


def _starts(text: str, start: str, whole: bool) -> bool:
    """Return whether a text starts with another; of a prefix, whether it is certain to."""
    if not text.startswith(start):
        return False
    # A mark that follows makes another letter of the last one. One that no mark can change, or
    # that is plain (see the class), needs no look at what follows.
    following = text[len(start) : len(start) + 1]
    if start[-1].isascii() or not can_compose(start[-1]):
        return True
    return not composes(following) if following else whole


@dataclass(frozen=True, kw_only=True)
class EndsWith(_Affix):
    """Ends with one of `texts`; upper and lower case are the same unless `case`."""

    kind: ClassVar[str] = "ends_with"

    def judge(self, output: object, item: Item) -> Verdict:
        """Compare the end."""
        return self.verdict(self._has_ending(self.text(output)), f"End with {quoted(self.texts)}.")

    def required_text(self, output: object, item: Item) -> RequiredText | None:
        """Return the texts unless the output ends with one."""
        return None if self._has_ending(self.text(output)) else RequiredText(self.texts)

    def constraint_specs(self, item: Item) -> tuple[ConstraintSpec, ...]:
        """Return the pattern of texts with one of the texts at this end."""
        pattern = f"{ANY}{one_of(map(str.rstrip, self.texts), self.case)}{BLANK}*"
        return (ConstraintSpec("regex", pattern, hints=self.texts[:1]),)

    def _has_ending(self, text: str) -> bool:
        text = self._fold(text.rstrip())
        return any(text.endswith(self._fold(end.rstrip())) for end in self.texts)
