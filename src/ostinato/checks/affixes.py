"""How a text begins and how it ends, white space around it aside."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ostinato.checks.base import CERTAIN, POSSIBLE, BaseCheck, impossible, quoted
from ostinato.checks.constraint_spec import ANY, BLANK, ConstraintSpec, one_of
from ostinato.loop import Item, PrefixVerdict, RequiredText, Verdict


@dataclass(frozen=True, kw_only=True)
class _Edge(BaseCheck):
    texts: tuple[str, ...]
    case: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.strings("texts"):
            raise self.refuse("texts", "at least one text", (), "Name how it is to be.")

    def _fold(self, text: str) -> str:
        # Unlike lower(), casefold() turns every character alone, so that the folded beginning of
        # a text is the beginning of the folded text.
        return text if self.case else text.casefold()


@dataclass(frozen=True, kw_only=True)
class StartsWith(_Edge):
    """Begins with one of the texts."""

    kind: ClassVar[str] = "starts_with"

    def judge(self, output: object, item: Item) -> Verdict:
        """Compare the beginning."""
        text = self._fold(self.text(output).lstrip())
        passed = any(text.startswith(self._fold(begin)) for begin in self.texts)
        return self.verdict(passed, self._message())

    def check_prefix(self, output: object, item: Item) -> PrefixVerdict:
        """Certain once it has begun so, impossible where it deviates."""
        text = self.text(output)
        said = self._fold(text.lstrip())
        begins = [self._fold(begin) for begin in self.texts]
        if any(said.startswith(begin) for begin in begins):
            return CERTAIN
        if any(begin.startswith(said) for begin in begins):
            return POSSIBLE
        return impossible(self._message(), self._deviation(text, begins), len(text))

    def wants(self, output: object, item: Item) -> RequiredText | None:
        """Return the texts as long as nothing has been said."""
        return None if self.text(output).strip() else RequiredText(self.texts)

    def languages(self, item: Item) -> tuple[ConstraintSpec, ...]:
        """Return the texts that begin so."""
        pattern = f"{BLANK}*{one_of(self.texts, self.case)}{ANY}"
        return (ConstraintSpec("regex", pattern, hints=self.texts[:1]),)

    def _deviation(self, text: str, begins: list[str]) -> int:
        """Return where the text leaves the beginning that it follows longest."""
        blank = len(text) - len(text.lstrip())
        for end in range(len(text) - 1, blank, -1):
            if any(begin.startswith(self._fold(text[blank:end])) for begin in begins):
                return end
        return blank

    def _message(self) -> str:
        return f"Begin with {quoted(self.texts)}."


@dataclass(frozen=True, kw_only=True)
class EndsWith(_Edge):
    """Ends with one of the texts."""

    kind: ClassVar[str] = "ends_with"

    def judge(self, output: object, item: Item) -> Verdict:
        """Compare the end."""
        return self.verdict(self._ended(self.text(output)), f"End with {quoted(self.texts)}.")

    def wants(self, output: object, item: Item) -> RequiredText | None:
        """Return the texts unless it ends with one."""
        return None if self._ended(self.text(output)) else RequiredText(self.texts)

    def languages(self, item: Item) -> tuple[ConstraintSpec, ...]:
        """Return the texts that end so."""
        pattern = f"{ANY}{one_of(self.texts, self.case)}{BLANK}*"
        return (ConstraintSpec("regex", pattern, hints=self.texts[:1]),)

    def _ended(self, text: str) -> bool:
        text = self._fold(text.rstrip())
        return any(text.endswith(self._fold(end)) for end in self.texts)
