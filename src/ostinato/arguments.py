"""What every package asks of its arguments (ranges, choices), and words that messages share.

One form for all messages: `<name> must be <expected>, got <value>. <How to fix it.>`
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import Field, fields
from numbers import Integral, Real
from typing import Any, ClassVar, NamedTuple, Protocol, get_args, get_type_hints

from ostinato.errors import InputError


class _Dataclass(Protocol):
    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]


def require(right: bool, name: str, expected: str, value: object, fix: str = "") -> None:
    """Raise `InputError` where an argument is not right: what it must be, its value, how to fix it.

    The error's `key` is the name.
    """
    if not right:
        error = InputError(f"{name} must be {expected}, got {value!r}.{' ' * bool(fix)}{fix}")
        error.key = name
        raise error


def require_at_least(least: float, fix: str = "", /, **values: float) -> None:
    """Raise `InputError` for the first value below `least`; 0 is written as "0 or more"."""
    expected = f"at least {least:g}" if least else "0 or more"
    for name, value in values.items():
        require(value >= least, name, expected, value, fix)


def require_above(bound: float, fix: str = "", /, **values: float) -> None:
    """Raise `InputError` for the first value that is not above `bound`."""
    for name, value in values.items():
        require(value > bound, name, f"above {bound:g}", value, fix)


def require_choice(name: str, value: object, choices: Iterable[str], fix: str = "") -> None:
    """Raise `InputError` where a value is none of its choices; the nearest of them is offered."""
    known = tuple(choices)
    if value not in known:
        expected = " or ".join(map(repr, known))
        require(False, name, expected, value, fix or did_you_mean(value, known).strip())


def require_literals(config: _Dataclass) -> None:
    """Raise `InputError` where a field whose type is a `Literal` of texts holds another value."""
    hints = get_type_hints(type(config))
    for spec in fields(config):
        choices = get_args(hints[spec.name])
        if choices and all(isinstance(choice, str) for choice in choices):
            require_choice(spec.name, getattr(config, spec.name), choices)


class NumberRange(NamedTuple):
    """The values that a number may have, and the words for them: `a number from 0 to 1`."""

    holds: Callable[[float], bool]
    expected: str
    whole: bool = False

    def includes(self, value: object) -> bool:
        """Return whether a value is one: NaN, texts, true and false are not."""
        kind = Integral if self.whole else Real
        return isinstance(value, kind) and not isinstance(value, bool) and self.holds(value)  # type: ignore[arg-type]

    def require(self, name: str, value: object, fix: str = "") -> None:
        """Raise `InputError` for another value."""
        require(self.includes(value), name, self.expected, value, fix)


SAMPLING_RANGES: Mapping[str, NumberRange] = {
    "temperature": NumberRange(lambda value: 0 <= value <= 100, "a number from 0 to 100"),
    "top_k": NumberRange(lambda value: 0 <= value < 1 << 31, "a whole number, 0 or more", True),
    "top_p": NumberRange(lambda value: 0 < value <= 1, "a number in (0, 1]"),
    "min_p": NumberRange(lambda value: 0 <= value < 1, "a number in [0, 1)"),
    # Beyond these a logit can overflow, and a row without finite logits has no distribution.
    "repetition_penalty": NumberRange(
        lambda value: 0.01 <= value <= 100, "a number from 0.01 to 100"
    ),
    "end_bias": NumberRange(lambda value: 0 <= value <= 1e6, "a number from 0 to 1000000"),
    "end_within": NumberRange(lambda value: value >= 1, "a whole number, 1 or more", True),
}
"""The settings of sampling: the same in Python, in jobs, in requests and on the command line."""


def require_sampling(settings: Mapping[str, object]) -> None:
    """Raise `InputError` for the first sampling setting out of its range; others are passed by."""
    for name, value in settings.items():
        if name in SAMPLING_RANGES:
            SAMPLING_RANGES[name].require(name, value)


def reason(error: Exception) -> str:
    """Return why a file cannot be used: the words of an `OSError` without its number and path."""
    words = error.strerror if isinstance(error, OSError) else None
    return words.lower() if words else str(error)


def counted(number: int, unit: str) -> str:
    """Return the number and its unit, which is given in the plural: `1 word`, `2 words`."""
    return f"{number} {unit[:-1] if number == 1 else unit}"


def did_you_mean(value: object, known: Iterable[str]) -> str:
    """Return ` Did you mean 'x'?` for the nearest known name; empty where none is near."""
    near = difflib.get_close_matches(str(value), list(known), n=1, cutoff=0.5)
    return f" Did you mean {near[0]!r}?" if near else ""
