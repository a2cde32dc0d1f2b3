"""What every package asks of its arguments (types, ranges, choices), and words of messages.

One form for all messages: `<name> must be <expected>, got <value>. <How to fix it.>`
"""

from __future__ import annotations

import difflib
import math
import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import Field, fields, is_dataclass
from functools import cache
from numbers import Integral, Real
from os import PathLike
from pathlib import Path
from types import UnionType
from typing import (
    Any,
    ClassVar,
    Literal,
    NamedTuple,
    Protocol,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

from ostinato.errors import InputError
from ostinato.synonyms import SYNONYMS


class _Dataclass(Protocol):
    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]


def require(right: bool, name: str, expected: str, value: object, fix: str = "") -> None:
    """Raise `InputError` where an argument is not right: what it must be, its value, how to fix it.

    The error's `key` is the name.
    """
    if not right:
        got = _shown(value)
        error = InputError(f"{name} must be {expected}, got {got}.{' ' * bool(fix)}{fix}")
        error.key = name
        raise error


def require_types(config: _Dataclass, named: str = "{}") -> None:
    """Raise `InputError` where a field of a configuration is not of its annotated type.

    `named` is how a message names a field, such as `Steps({})`. A bool is no number, and a number
    is finite; numbers of numpy become Python's, texts become paths, and lists, or a lone text,
    tuples.
    """
    for name, hint in _field_hints(type(config)).items():
        value = getattr(config, name)
        try:
            typed = require_type(named.format(name), value, hint)
        except InputError as error:
            error.key = name
            raise
        if typed is not value:
            object.__setattr__(config, name, typed)  # the configuration is frozen


def require_arguments(function: Callable[..., object], given: Mapping[str, object]) -> None:
    """Raise `InputError` where an argument of a call is not of its annotated type.

    `given` are the call's `locals()`, before anything is assigned.
    """
    for name, hint in _argument_hints(function).items():
        require_type(name, given[name], hint)


def refuse_single(name: str, value: object) -> None:
    """Raise `InputError` for one text in place of a list: it is a sequence of its characters."""
    if isinstance(value, str):
        raise InputError(f"{name} must be a list of texts, got {value!r:.60}. Write [{name[:-1]}].")


def require_type(name: str, value: object, hint: Any, fix: str = "") -> Any:
    """Return a value as a type. Raises `InputError` where it is not of that type.

    `hint` is the type's annotation; what it cannot say is not checked.
    """
    typed = _as_hint(value, hint)
    if typed is not _UNTYPED:
        return typed
    kinds = _kinds(hint)
    expected = " or ".join(dict.fromkeys(_expected(kind, value) for kind in kinds))
    require(False, name, expected, value, fix or _fix(value, kinds))


@cache
def _field_hints(config: type[_Dataclass]) -> dict[str, Any]:
    hints = get_type_hints(config)
    return {spec.name: hints[spec.name] for spec in fields(config) if spec.init}


@cache
def _argument_hints(function: Callable[..., object]) -> dict[str, Any]:
    hints = get_type_hints(function)
    return {name: hint for name, hint in hints.items() if name != "return"}


_UNTYPED = object()
_LARGEST = 2**63 - 1  # of a whole number that torch, SQLite and files can hold
_WORDS: dict[Any, str] = {
    int: "a whole number",
    float: "a number",
    str: "a text",
    bool: "True or False",
    type(None): "None",
    Path: "a path",
}


def _kinds(hint: Any) -> tuple[Any, ...]:
    """Return the types that a hint joins by `|`, or the hint alone."""
    return get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)


def _typed(value: object, kind: Any) -> object:
    """Return a value as a type, `_UNTYPED` where it is not of it."""
    origin, args = get_origin(kind) or kind, get_args(kind)
    if origin in (int, float):
        return _number(value, origin)
    if origin is Literal:
        same = (arg for arg in args if arg == value and type(arg) is type(value))
        return next(same, _UNTYPED)
    if origin is Path and isinstance(value, str | PathLike):
        return value if isinstance(value, Path) else Path(value)
    if origin is tuple:
        return _tuple(value, args)
    if origin is Callable:
        return value if callable(value) else _UNTYPED
    if (
        origin is not Any
        and isinstance(origin, type)
        and not getattr(origin, "_is_protocol", False)
    ):
        fits = isinstance(value, origin) and (origin is not Iterable or not isinstance(value, str))
        return value if fits and _keys_fit(value, args) else _UNTYPED
    return value


def _number(value: object, kind: type) -> object:
    if isinstance(value, bool) or not isinstance(value, Integral if kind is int else Real):
        return _UNTYPED
    if isinstance(value, Integral):
        whole = int(value)  # the same object for an int of Python
        return whole if abs(whole) <= _LARGEST else _UNTYPED
    number = float(value)
    return number if math.isfinite(number) else _UNTYPED


def _tuple(value: object, args: tuple[Any, ...]) -> object:
    variable = args[1:] == (...,)
    if variable and isinstance(value, str):
        value = (value,)
    if not isinstance(value, Iterable) or isinstance(value, str | bytes | Mapping):
        return _UNTYPED
    value = value if isinstance(value, tuple) else tuple(value)
    hints = args[:1] * len(value) if variable else args
    if args and len(hints) != len(value):
        return _UNTYPED
    typed = tuple(
        next(
            (one for kind in _kinds(hint) if (one := _typed(part, kind)) is not _UNTYPED), _UNTYPED
        )
        for part, hint in zip(value, hints, strict=bool(args))
    )
    if any(part is _UNTYPED for part in typed):
        return _UNTYPED
    return value if all(map(operator.is_, typed, value)) else typed


def _as_hint(value: object, hint: Any) -> object:
    """Return a value as the first type of a hint that it is of, else `_UNTYPED`."""
    typed = (_typed(value, kind) for kind in _kinds(hint))
    return next((one for one in typed if one is not _UNTYPED), _UNTYPED)


def _keys_fit(value: object, args: tuple[Any, ...]) -> bool:
    """Return whether keys and values of a mapping are of their types; true for anything else."""
    if not isinstance(value, Mapping) or len(args) != 2:
        return True
    return all(
        # An infinite number is taken: a bias of minus infinity forbids a token.
        _as_hint(part, hint) is not _UNTYPED or (hint is float and part in (math.inf, -math.inf))
        for pair in value.items()
        for part, hint in zip(pair, args, strict=True)
    )


def _expected(kind: Any, value: object) -> str:
    """Return the words for a type, which a value is not of."""
    origin, args = get_origin(kind) or kind, get_args(kind)
    if origin is Literal:
        return " or ".join(map(repr, args))
    if origin is tuple and args[1:] == (...,):
        what = _WORDS.get(args[0], getattr(args[0], "__name__", "value"))
        return f"a list of {what.removeprefix('a ')}s"
    if origin is Callable:
        return "a function"
    if origin in (int, float) and isinstance(value, Real) and not isinstance(value, bool):
        whole = origin is int and not isinstance(value, Integral)
        return _WORDS[int] if whole else f"{_WORDS[origin]} that is finite and below 2**63"
    name = getattr(origin, "__name__", str(origin))
    return _WORDS.get(origin, f"{'an' if name[0] in 'AEIO' else 'a'} {name}")


def _spelled(config: type[_Dataclass], value: object) -> str:
    """Return how a configuration is made of its first field, if that is a number; else nothing."""
    name, hint = next(iter(_field_hints(config).items()))
    return f"{config.__name__}({name}={value!r})" if hint in (int, float) else ""


def _shown(value: object, most: int = 80) -> str:
    """Return a value for a message, cut where it is long."""
    try:
        text = repr(value)
    except Exception:  # of a user's class; a number of over 4,300 digits
        return f"a value of type {type(value).__name__}"
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _fix(value: object, kinds: Sequence[Any]) -> str:
    choices = [arg for kind in kinds if get_origin(kind) is Literal for arg in get_args(kind)]
    if choices:
        return did_you_mean(value, map(str, choices)).strip()
    if isinstance(value, int | float) and not isinstance(value, bool):
        configs = (kind for kind in kinds if isinstance(kind, type) and is_dataclass(kind))
        return next((f"Write {text}." for one in configs if (text := _spelled(one, value))), "")
    quoted = isinstance(value, str) and value.replace(".", "", 1).removeprefix("-").isdigit()
    return "Leave out the quotes." if quoted and {int, float} & set(kinds) else ""


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
    "top_k": NumberRange(
        lambda value: 0 <= value < 1 << 31, "a whole number from 0 to 2147483647", True
    ),
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


def counted(number: float, units: str, spec: str = "") -> str:
    """Return a number and its unit, which is given in the plural: `1 word`, `2 words`.

    `spec` is how the number is formatted, such as `,` or `g`.
    """
    return f"{number:{spec}} {_singular(units) if number == 1 else units}"


def were(number: float) -> str:
    """Return the verb of a number of things: `was` or `were`."""
    return "was" if number == 1 else "were"


def _singular(units: str) -> str:
    endings = (("ies", "y"), ("ches", "ch"), ("s", ""), ("", ""))  # the last for `cost`
    ending, one = next(each for each in endings if units.endswith(each[0]))
    return units.removesuffix(ending) + one


def did_you_mean(value: object, known: Iterable[str]) -> str:
    """Return ` Did you mean 'x'?` for the nearest known name; empty where none is near."""
    near = nearest(value, known)
    return f" Did you mean {near!r}?" if near else ""


def nearest(value: object, known: Iterable[str]) -> str:
    """Return the known name that is meant: a synonym of the field, else the most similar one.

    Empty where none is near. Dashes count as underscores, also those before an option.
    """
    names = {_plain(name): name for name in known}
    meant = _plain(str(value))
    if meant in names:
        return names[meant]
    for group in SYNONYMS:
        if meant in group and (same := next((name for name in group if name in names), "")):
            return names[same]
    return names[close[0]] if (close := difflib.get_close_matches(meant, names, 1, 0.5)) else ""


def _plain(name: str) -> str:
    return name.lstrip("-").lower().replace("-", "_").replace(" ", "_")
