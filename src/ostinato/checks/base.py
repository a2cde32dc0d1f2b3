"""What all checks share: a name, verdicts and refusals of parameters. Knows no single check."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar

from ostinato.arguments import require_types
from ostinato.checks.constraint_spec import ConstraintSpec
from ostinato.errors import InputError
from ostinato.loop import Item, PrefixStatus, PrefixVerdict, RequiredText, Span, Verdict

POSSIBLE = PrefixVerdict()
CERTAIN = PrefixVerdict(PrefixStatus.CERTAIN)


@dataclass(frozen=True, kw_only=True)
class BaseCheck(ABC):
    """A check as a value: its fields are its parameters, in Python and in a job file.

    A new check defines `judge`, and where it can `check_prefix`, `required_text`,
    `constraint_specs` and `check_item`.
    """

    kind: ClassVar[str] = ""
    trusted: ClassVar[bool] = True  # False: it may hang, so the runner limits its time

    name: str = ""

    def __post_init__(self) -> None:
        require_types(self, f"'{{}}' of the check '{self.name or self.kind}'")
        if not self.name:
            object.__setattr__(self, "name", self.kind)

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that every item must have; a job is refused before it starts otherwise."""
        return ()

    @abstractmethod
    def judge(self, output: object, item: Item) -> Verdict:
        """Judge a whole output."""

    def require_available(self) -> None:
        """Raise `OstinatoError` where something is missing that judging needs. Loads nothing."""
        return

    def prepare(self) -> None:
        """Load what judging needs, such as a model. Raises `OstinatoError` where it is missing."""
        return

    def check_item(self, item: Item) -> None:
        """Raise `InputError` for an item whose columns the check cannot use, whatever the text."""
        return

    def check_prefix(self, output: object, item: Item) -> PrefixVerdict:
        """Judge a prefix; here nothing is known, so every continuation is possible."""
        return POSSIBLE

    def required_text(self, output: object, item: Item) -> RequiredText | None:
        """Return what the text must still contain; here nothing in particular."""
        return None

    def constraint_specs(self, item: Item) -> tuple[ConstraintSpec, ...]:
        """Return languages that contain every text that passes; none where none is known.

        The strategy `constrain` makes token masks of them. Tight ones help most: a text that is in
        all of them should pass.
        """
        return ()

    def text(self, output: object) -> str:
        """Return the output as a text. Raises `InputError` for anything else."""
        if isinstance(output, str):
            return output
        raise InputError(
            f"The output given to the check '{self.name}' must be a text, got "
            f"{type(output).__name__}. Use a python check for other outputs."
        )

    def verdict(
        self,
        passed: bool,
        message: str = "",
        score: float | None = None,
        span: Span | None = None,
    ) -> Verdict:
        """Return a verdict. Without a score it is 1 or 0; a passed one has no message."""
        score = float(passed) if score is None else score
        return Verdict(self.name, passed, score, "" if passed else message, span)

    def error(self, sentence: str) -> Verdict:
        """Return the verdict of a check that could not judge."""
        return Verdict(self.name, False, 0.0, error=sentence)

    def refuse(self, field: str, expected: str, got: object, fix: str) -> InputError:
        """Return the error for a wrong parameter, with the field as its `key`."""
        error = InputError(
            f"'{field}' of the check '{self.name or self.kind}' must be {expected}, got {got!r}. "
            f"{fix}"
        )
        error.key = field
        return error

    @contextmanager
    def about(self, field: str) -> Iterator[None]:
        """Name the parameter in any `InputError` that is raised inside."""
        try:
            yield
        except InputError as error:
            named = InputError(f"'{field}' of the check '{self.name or self.kind}': {error}")
            named.key = field
            raise named from None

    def strings(self, field: str) -> tuple[str, ...]:
        """Check that the field holds non-empty strings; a single one becomes a tuple of one."""
        value = getattr(self, field)
        texts = (value,) if isinstance(value, str) else tuple(value)
        for text in texts:
            if not isinstance(text, str) or not text.strip():
                raise self.refuse(field, "texts that are not empty", text, "Remove it.")
        object.__setattr__(self, field, texts)
        return texts

    def bounds(self, low: str = "min", high: str = "max") -> None:
        """Refuse bounds that nothing can meet, and two that are both None."""
        least, most = getattr(self, low), getattr(self, high)
        if least is None and most is None:
            raise self.refuse(low, f"given, or '{high}'", None, "Without a bound all would pass.")
        if least is not None and most is not None and least > most:
            raise self.refuse(
                low, f"at most {high} ({most})", least, f"Lower {low} or raise {high}."
            )


def impossible(message: str, start: int, end: int) -> PrefixVerdict:
    """Return the verdict that no continuation passes while `text[start:end]` stays."""
    return PrefixVerdict(PrefixStatus.IMPOSSIBLE, message, Span(start, end))


def column_texts(check: str, item: Item, column: str) -> tuple[str, ...]:
    """Return a column's texts: a string or number is one, a list holds many.

    Empty texts and None are skipped. Raises `InputError` where the column is missing or holds
    something else.
    """
    if column not in item:
        raise InputError(
            f"The column '{column}' of the check '{check}' must be in every item, got "
            f"{', '.join(map(repr, item)) or 'no columns'}. Add it, or name another column."
        )
    value = item[column]
    if value is None:
        return ()
    values = value if isinstance(value, list | tuple) else (value,)
    for one in values:
        if isinstance(one, Mapping) or not isinstance(one, str | int | float):
            raise InputError(
                f"The column '{column}' of the check '{check}' must hold a text or a list of "
                f"texts, got {one!r}. Name a column of texts."
            )
    return tuple(text for text in (str(one).strip() for one in values) if text)


def quoted(texts: Iterable[str], joiner: str = "or", most: int = 6) -> str:
    """Return the texts in quotes, joined: `"a", "b" or "c"`. Beyond `most` they are counted."""
    texts = tuple(texts)
    more = len(texts) - most + 1 if len(texts) > most else 0
    shown = [f'"{text}"' for text in (texts[: most - 1] if more else texts)]
    if more:
        shown.append(f"{more} more")
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} {joiner} {shown[-1]}"
