"""The whole text is one of some texts: a label, a yes or no, a value of the item."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ostinato.checks.base import POSSIBLE, BaseCheck, column_texts, impossible, quoted
from ostinato.checks.constraint_spec import BLANK, ConstraintSpec, one_of
from ostinato.loop import Item, PrefixVerdict, RequiredText, Verdict


@dataclass(frozen=True, kw_only=True)
class Choice(BaseCheck):
    """The text is one of the `texts` or of the `column`'s values, white space around it aside."""

    kind: ClassVar[str] = "choice"

    texts: tuple[str, ...] = ()
    column: str = ""
    case: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.strings("texts") and not self.column:
            raise self.refuse("texts", "given, or 'column'", (), "Name what may be chosen.")

    @property
    def columns(self) -> tuple[str, ...]:
        """The column whose texts may be chosen."""
        return (self.column,) if self.column else ()

    def judge(self, output: object, item: Item) -> Verdict:
        """Compare the whole text with each."""
        text, choices = self._fold(self.text(output).strip()), self._choices(item)
        passed = any(self._fold(choice.strip()) == text for choice in choices)
        return self.verdict(passed, self._message(choices))

    def check_prefix(self, output: object, item: Item) -> PrefixVerdict:
        """Impossible where no choice begins so."""
        text, choices = self.text(output), self._choices(item)
        said = self._fold(text.lstrip())
        begins = [self._fold(choice.strip()) for choice in choices]
        if any(begin.startswith(said) or said.rstrip() == begin for begin in begins):
            return POSSIBLE
        return impossible(self._message(choices), len(text) - len(text.lstrip()), len(text))

    def wants(self, output: object, item: Item) -> RequiredText | None:
        """Return the choices as long as nothing has been said."""
        return None if self.text(output).strip() else RequiredText(self._choices(item))

    def languages(self, item: Item) -> tuple[ConstraintSpec, ...]:
        """Return the choices."""
        choices = [choice.strip() for choice in self._choices(item)]
        if not choices:
            return ()
        pattern = f"{BLANK}*{one_of(choices, self.case)}{BLANK}*"
        return (ConstraintSpec("regex", pattern, hints=(min(choices, key=len),)),)

    def _choices(self, item: Item) -> tuple[str, ...]:
        return self.texts + (column_texts(self.name, item, self.column) if self.column else ())

    def _fold(self, text: str) -> str:
        return text if self.case else text.casefold()  # each character by itself, unlike lower()

    def _message(self, choices: tuple[str, ...]) -> str:
        if not choices:
            return f"There is nothing to choose: the column '{self.column}' is empty."
        return f"Write {quoted(choices)}, nothing else."
