"""The whole text is one of several: a label, a yes or no, a value of the item."""

from __future__ import annotations

from dataclasses import dataclass
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

    def judge(self, output: object, item: Item) -> Verdict:
        """Compare the whole text with each choice."""
        text, choices = self._fold(self.text(output).strip()), self._choices(item)
        passed = any(self._fold(choice.strip()) == text for choice in choices)
        return self.verdict(passed, self._message(choices))

    def check_prefix(self, output: object, item: Item) -> PrefixVerdict:
        """Impossible where no choice starts with the prefix."""
        text, choices = self.text(output), self._choices(item)
        prefix = decomposed_start(text.lstrip(), self.case)
        folded = [self._fold(choice.strip()) for choice in choices]
        # The second case is a whole choice with white space after it.
        if any(choice.startswith(prefix) or prefix.rstrip() == choice for choice in folded):
            return POSSIBLE
        return impossible(self._message(choices), len(text) - len(text.lstrip()), len(text))

    def required_text(self, output: object, item: Item) -> RequiredText | None:
        """Return the choices while the text is empty."""
        return None if self.text(output).strip() else RequiredText(self._choices(item))

    def constraint_specs(self, item: Item) -> tuple[ConstraintSpec, ...]:
        """Return the choices as one pattern; none where the item has no choice."""
        choices = [choice.strip() for choice in self._choices(item)]
        if not choices:
            return ()
        pattern = f"{BLANK}*{one_of(choices, self.case)}{BLANK}*"
        return (ConstraintSpec("regex", pattern, hints=(min(choices, key=len),)),)

    def _choices(self, item: Item) -> tuple[str, ...]:
        return self.texts + (column_texts(self.name, item, self.column) if self.column else ())

    def _fold(self, text: str) -> str:
        return decomposed(text, self.case)

    def _message(self, choices: tuple[str, ...]) -> str:
        if not choices:
            return f"There is no choice: the column '{self.column}' is empty."
        return f"Write {quoted(choices)}, nothing else."
