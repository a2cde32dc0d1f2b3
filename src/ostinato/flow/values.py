"""Values that a flow records: what its calls get and return, as JSON and back by annotations.

Knows no flow and no journal.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from pathlib import Path, PurePath
from typing import Any, Literal, TypeVar, Union, get_args, get_origin
from uuid import UUID

from ostinato.errors import InputError

PLAIN = (str, int, float, bool, type(None))
"""What JSON holds as it is."""

_AS_TEXT: dict[type, Callable[[str], object]] = {
    datetime: datetime.fromisoformat,
    date: date.fromisoformat,
    time: time.fromisoformat,
    Decimal: Decimal,
    UUID: UUID,
    Path: Path,
}


def plain(value: object, what: str) -> object:
    """Return a value as JSON holds it; tensors and arrays stay, as the journal keeps them.

    Raises `InputError`, which calls the value `what`, for what cannot be recorded.
    """
    if type(value) in PLAIN:
        return value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        names = [each.name for each in dataclasses.fields(value)]
        return {name: plain(getattr(value, name), f"{what}.{name}") for name in names}
    if hasattr(value, "model_dump") and not isinstance(value, type):  # a model of pydantic
        return value.model_dump(mode="json")
    if isinstance(value, Enum):
        return plain(value.value, what)
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, Decimal | UUID | PurePath):
        return str(value)
    if isinstance(value, str):  # a text that knows more, such as a reply
        return str.__str__(value)
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise InputError(
                    f"{what} must have texts as keys, got {key!r}. Turn them into texts."
                )
        return {str(key): plain(each, f"{what}[{key!r}]") for key, each in value.items()}
    if isinstance(value, set | frozenset):
        each_of = [plain(each, what) for each in value]
        return sorted(each_of, key=lambda each: (type(each).__name__, repr(each)))
    if isinstance(value, Sequence) and not isinstance(value, bytes | bytearray | memoryview):
        return [plain(each, f"{what}[{number}]") for number, each in enumerate(value)]
    if hasattr(value, "tolist"):
        return value
    raise InputError(
        f"{what} must be made of numbers, texts, lists, mappings and dataclasses, to be recorded, "
        f"got a {type(value).__qualname__}. Return what can be recorded, or a name to find it by."
    )


def typed(value: Any, hint: Any, what: str) -> Any:
    """Return a value that `plain` made as its annotation says.

    Raises `InputError` where it does not fit the annotation.
    """
    if _is_as_annotated(value, hint):
        return value
    try:
        return _typed(value, hint)
    except (TypeError, ValueError, KeyError, ArithmeticError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"{what} must be what its annotation says, {shown(hint)}, got {value!r:.60}: {error}. "
            "Mend the annotation, or what is returned."
        ) from None


def _is_as_annotated(value: object, hint: Any) -> bool:
    """Whether JSON holds a value as its annotation says. Quick, as most calls return such."""
    return type(value) is hint and hint in PLAIN


def _typed(value: Any, hint: Any) -> Any:
    if hint in (Any, object, None, type(None)) or isinstance(hint, TypeVar | str):
        return value
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is typing.Annotated:
        return _typed(value, arguments[0])
    if origin in (Union, types.UnionType):
        return _of_union(value, arguments)
    if origin is Literal:
        return _one_of(value, arguments)
    kind = origin or hint
    if not isinstance(kind, type):
        return value
    if kind in PLAIN:
        return _of_kind(value, kind)
    if kind in _AS_TEXT:
        return _AS_TEXT[kind](_of_kind(value, str))
    if kind is timedelta:
        return timedelta(seconds=_of_kind(value, float))
    if issubclass(kind, Enum):
        return kind(value)
    if hasattr(kind, "model_validate"):
        return kind.model_validate(value)
    if dataclasses.is_dataclass(kind):
        return _of_dataclass(value, kind)
    return _of_container(value, kind, arguments)


def _of_kind(value: Any, kind: type) -> Any:
    if kind is float and type(value) is int:
        return float(value)
    if not isinstance(value, kind) or (kind is not bool and isinstance(value, bool)):
        raise TypeError(f"a {type(value).__name__} is no {kind.__name__}")
    return value


def _of_union(value: Any, kinds: Sequence[Any]) -> Any:
    if value is None and type(None) in kinds:
        return None
    # A type that holds the value as it is comes first: a text is no date where both are allowed.
    for kind in sorted(kinds, key=lambda kind: kind is not type(value)):
        try:
            if kind is not type(None):
                return _typed(value, kind)
        except (TypeError, ValueError, KeyError, ArithmeticError):
            continue
    raise TypeError("it is none of these")


def _one_of(value: Any, values: Sequence[Any]) -> Any:
    if value not in values:
        raise TypeError("it is none of these")
    return value


def _of_dataclass(value: Any, kind: Any) -> Any:
    hints = typing.get_type_hints(kind)
    values = {
        name: _typed(each, hints.get(name, Any)) for name, each in _of_kind(value, dict).items()
    }
    made = {each.name for each in dataclasses.fields(kind) if each.init}
    found = kind(**{name: each for name, each in values.items() if name in made})
    return found


def _of_container(value: Any, kind: type, arguments: Sequence[Any]) -> Any:
    if issubclass(kind, tuple):
        return _of_tuple(_of_kind(value, list), kind, arguments)
    if issubclass(kind, set | frozenset):
        return kind(_typed(each, (arguments or (Any,))[0]) for each in _of_kind(value, list))
    if issubclass(kind, Mapping) or kind is dict:
        inner = arguments[1] if len(arguments) == 2 else Any
        hints = typing.get_type_hints(kind) if typing.is_typeddict(kind) else {}
        return {
            key: _typed(each, hints.get(key, inner)) for key, each in _of_kind(value, dict).items()
        }
    if issubclass(kind, Sequence) or kind is list or issubclass(list, kind):
        return [_typed(each, (arguments or (Any,))[0]) for each in _of_kind(value, list)]
    return value


def _of_tuple(values: Sequence[Any], kind: type, arguments: Sequence[Any]) -> Any:
    hints = getattr(kind, "__annotations__", {})
    if hasattr(kind, "_fields"):  # a named tuple
        resolved = typing.get_type_hints(kind)
        return kind(
            *(
                _typed(each, resolved.get(name, Any))
                for each, name in zip(values, hints, strict=True)
            )
        )
    if len(arguments) == 2 and arguments[1] is Ellipsis:
        return tuple(_typed(each, arguments[0]) for each in values)
    if arguments:
        return tuple(_typed(each, hint) for each, hint in zip(values, arguments, strict=True))
    return tuple(values)


def recordable(value: object, hint: Any, what: str) -> object:
    """Return a value as it is recorded. Raises `InputError` where it would not come back."""
    if _is_as_annotated(value, hint):
        return value
    kept = plain(value, what)
    if hint is Any or hint is None:
        if not _is_plain(value):
            raise InputError(
                f"{what} must be what JSON holds (numbers, texts, lists, mappings), or its "
                f"function must say what it returns by an annotation, got a "
                f"{type(value).__qualname__}. Annotate it, or return a list or a mapping."
            )
        return kept
    back = typed(kept, hint, what)
    if not same(value, back) and not (type(value) is int and type(back) is float):
        raise InputError(
            f"{what} must come back from JSON as its annotation says, got a "
            f"{type(value).__qualname__}, of which a {type(back).__qualname__} comes back. "
            "Annotate what it really returns."
        )
    return kept


def _is_plain(value: object) -> bool:
    if isinstance(value, str | int | float | bool | None) or hasattr(value, "tolist"):
        return True
    if type(value) is list:
        return all(_is_plain(each) for each in value)
    return type(value) is dict and all(_is_plain(each) for each in value.values())


def shown(hint: Any) -> str:
    """Return an annotation as one writes it."""
    name: str = getattr(hint, "__qualname__", "") if isinstance(hint, type) else ""
    return name if name and not get_args(hint) else str(hint).replace("typing.", "")


def return_hint(function: Callable[..., object]) -> Any:
    """Return the annotation of what a function returns; `Any` where there is none to be read."""
    return hints_of(function).get("return", Any)


def hints_of(function: Callable[..., object]) -> dict[str, Any]:
    """Return the annotations of a function; those that cannot be read are left out."""
    try:
        return typing.get_type_hints(function)
    except Exception:  # a name that only a type checker imports
        return {}


def same(value: object, back: object) -> bool:
    """Whether a value came back as it was, types included; a reply comes back as a text."""
    if isinstance(value, str) and type(back) is str and not isinstance(value, Enum):
        return str.__eq__(value, back)
    if type(value) is not type(back):
        return False
    if isinstance(value, Mapping) and isinstance(back, Mapping):
        return value.keys() == back.keys() and all(same(value[key], back[key]) for key in value)
    if isinstance(value, list | tuple) and isinstance(back, list | tuple):
        pairs = zip(value, back, strict=False)
        return len(value) == len(back) and all(same(one, other) for one, other in pairs)
    if hasattr(value, "tolist") or dataclasses.is_dataclass(value):
        return True  # compared by nothing that a tensor in it would allow
    return bool(value == back) or value != value  # not a number
