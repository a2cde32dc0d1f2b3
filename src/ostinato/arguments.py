"""What every package asks of its arguments (ranges, choices), and words that messages share.

One form for all messages: `<name> must be <expected>, got <value>. <How to fix it.>`
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import Field, fields
from typing import Any, ClassVar, Protocol, get_args, get_type_hints

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
