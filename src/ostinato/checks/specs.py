"""Checks from the tables of a job file, and back. Their keys are the dataclass fields."""

from __future__ import annotations

import importlib
import importlib.util
import types
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import MISSING, Field, fields, replace
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from ostinato.arguments import did_you_mean
from ostinato.checks.affixes import EndsWith, StartsWith
from ostinato.checks.base import BaseCheck
from ostinato.checks.blocked import Blocked, read_words
from ostinato.checks.choice import Choice
from ostinato.checks.function import NOT_IN_JOBS, Function
from ostinato.checks.grounding.check import Grounded
from ostinato.checks.json_schema.check import JsonSchema, read_schema
from ostinato.checks.judge.check import Judge
from ostinato.checks.length import Length
from ostinato.checks.metrics import Confidence, Repetition, Sentiment
from ostinato.checks.on_topic import OnTopic
from ostinato.checks.regex_check import Regex
from ostinato.checks.words import Contains, Excludes
from ostinato.errors import InputError
from ostinato.journal import JSON
from ostinato.python_files import module_at

_CLASSES: tuple[type[BaseCheck], ...] = (
    Blocked,
    Choice,
    Confidence,
    Contains,
    EndsWith,
    Excludes,
    Function,
    Grounded,
    JsonSchema,
    Judge,
    Length,
    OnTopic,
    Regex,
    Repetition,
    Sentiment,
    StartsWith,
)
KINDS: dict[str, type[BaseCheck]] = {cls.kind: cls for cls in _CLASSES}
"""The classes of checks that a job file can name, by kind."""

_FILES: dict[str, tuple[str, Callable[[Path], object]]] = {
    Blocked.kind: ("words", read_words),
    JsonSchema.kind: ("schema", read_schema),
}
"""The kinds with a key `file`: the field that it fills, and how it is read."""


def from_spec(kind: str, table: Mapping[str, object], folder: Path | str = ".") -> BaseCheck:
    """Build a check from a job file's table; `kind` is the table's own if it is empty.

    Files and modules are looked up in `folder`. Raises `InputError` for anything that is wrong,
    with the key of the table as its `key`.
    """
    with _at_key("kind"):
        kind = kind or _kind_of(table)
        if kind not in KINDS:
            raise _unknown("check", kind, KINDS)
    values = {key: value for key, value in table.items() if key != "kind"}
    if kind == Function.kind:
        return _python(values, Path(folder))
    cls = KINDS[kind]
    if "file" in values and kind in _FILES:
        _fill_from_file(kind, values, Path(folder))
    return cls(**_arguments(cls, kind, values))


def to_spec(check: BaseCheck) -> dict[str, JSON]:
    """Return the table that builds the check again: its kind, and the values that differ.

    It contains what came from a file. A function without `call` is named for the reader, and may
    not be found by that name.
    """
    spec: dict[str, JSON] = {"kind": check.kind}
    for field in _job_fields(type(check)):
        value = getattr(check, field.name)
        default = field.default if field.default_factory is MISSING else field.default_factory()
        if value != default and not (field.name == "name" and value == check.kind):
            spec[field.name] = list(value) if isinstance(value, tuple) else value
    if isinstance(check, Function) and not check.call:
        function = check.function
        spec["call"] = f"{function.__module__}:{getattr(function, '__qualname__', check.name)}"
    return spec


def parameters(kind: str) -> list[str]:
    """Return the keys that a table of the kind can have, without `kind` itself."""
    names = [field.name for field in _job_fields(KINDS[kind])]
    return [*names, "file"] if kind in _FILES else names


def _job_fields(cls: type[BaseCheck]) -> list[Field[Any]]:
    """Return the fields that a table can set."""
    return [spec for spec in fields(cls) if spec.init and spec.metadata != NOT_IN_JOBS]


def inside(folder: Path, name: str, where: str) -> Path:
    """Return a file of the folder. Raises `InputError` where it is not inside, or missing."""
    root = folder.resolve()
    path = (root / name).resolve()
    if not path.is_relative_to(root):
        raise InputError(
            f"The file of {where} must be inside the job's folder, got {name!r}. Copy it there."
        )
    if not path.is_file():
        raise InputError(f"The file of {where} must exist, got {name!r} in {folder}. Create it.")
    return path


def _kind_of(table: Mapping[str, object]) -> str:
    kind = table.get("kind")
    if not isinstance(kind, str):
        raise InputError(
            f"'kind' of a check must be one of {', '.join(sorted(KINDS))}, got {kind!r}. Add one."
        )
    return kind


def _unknown(what: str, name: str, known: Iterable[str]) -> InputError:
    known = sorted(known)
    guess = did_you_mean(name, known) or " Use one of these."
    return InputError(f"A {what} must be one of {', '.join(known)}, got '{name}'.{guess}")


def _arguments(cls: type[BaseCheck], kind: str, values: Mapping[str, object]) -> dict[str, Any]:
    """Return the values as the fields' types. Raises `InputError` for a wrong or missing key."""
    known, hints = parameters(kind), get_type_hints(cls)
    arguments = {}
    for key, value in values.items():
        with _at_key(key):
            if key not in known:
                raise _unknown(f"key of the check '{kind}'", key, known)
            arguments[key] = _converted(value, hints[key], f"'{key}' of the check '{kind}'")
    for field in _job_fields(cls):
        required = field.default is MISSING and field.default_factory is MISSING
        if required and field.name not in arguments:
            other = " or 'file'" if kind in _FILES else ""
            raise InputError(
                f"The check '{kind}' must have '{field.name}'{other}, got none. Add it."
            )
    return arguments


_SCALARS: dict[type, str] = {
    int: "a whole number",
    float: "a number",
    str: "a text",
    bool: "a bool",
}


def _converted(value: object, hint: Any, where: str) -> object:
    """Return a TOML value as a field's type. Raises `InputError` where it does not fit.

    Fields are scalars, `Literal`s of texts, tuples of texts, tables, or one of these and None.
    """
    origin, args = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return _converted(value, next(arg for arg in args if arg is not type(None)), where)
    if origin is Literal:
        if value not in args:
            raise _unknown(f"value of {where}", str(value), map(str, args))
        return value
    if origin is tuple:
        return _texts(value, where)
    if hint in _SCALARS:
        return _scalar(value, hint, where)
    if not isinstance(value, Mapping):
        raise InputError(f"{where} must be a table, got {value!r}. Write it as a table.")
    return value


def _texts(value: object, where: str) -> tuple[str, ...]:
    values = [value] if isinstance(value, str) else value
    if not isinstance(values, list | tuple) or not all(isinstance(v, str) for v in values):
        raise InputError(f'{where} must be a list of texts, got {value!r}. Write ["…"].')
    return tuple(values)


def _scalar(value: object, hint: type, where: str) -> object:
    # bool is a subclass of int, so `isinstance` alone would take true for 1.
    fits = isinstance(value, hint) or (hint is float and isinstance(value, int))
    if not fits or (isinstance(value, bool) and hint is not bool):
        raise InputError(f"{where} must be {_SCALARS[hint]}, got {value!r}. Change it.")
    return float(value) if hint is float and isinstance(value, int) else value


def _fill_from_file(kind: str, values: dict[str, object], folder: Path) -> None:
    """Replace the key `file` by what the file holds; a word list is added to the table's own."""
    field, read = _FILES[kind]
    where = f"the check '{kind}'"
    name = _scalar(values.pop("file"), str, f"'file' of {where}")
    with _at_key("file"):
        content = read(inside(folder, str(name), where))
    if isinstance(content, tuple) and isinstance(values.get(field), list | tuple):
        content = (*values[field], *content)  # type: ignore[misc]
    elif field in values and not isinstance(content, tuple):
        raise InputError(f"{where} must have '{field}' or 'file', got both. Leave one out.")
    values[field] = content


@contextmanager
def _at_key(key: str, field: str = "") -> Iterator[None]:
    """Set the `key` of an `InputError` that names the field, or nothing, as its own."""
    try:
        yield
    except InputError as error:
        if error.key == field:
            error.key = key
        raise


def _python(values: Mapping[str, object], folder: Path) -> Function:
    """Build the check of a function, or change one that `@check` has made, by the table."""
    arguments = _arguments(Function, Function.kind, values)
    call = arguments.get("call")
    if not call:
        raise InputError("The check 'python' must have 'call', got none. Add call = 'module:name'.")
    with _at_key("call"):
        found = imported(str(call), folder)
    with _at_key("call", "function"):
        if isinstance(found, Function):
            return replace(found, **arguments)
        return Function(**arguments, function=found)


def imported(call: str, folder: Path) -> Any:
    """Return the object that `module:name` names, in a file of the folder or a package."""
    module_name, _, name = call.partition(":")
    parts = module_name.split(".")
    if not name.isidentifier() or not all(part.isidentifier() for part in parts):
        raise InputError(f"'call' of a check must be 'module:name', got {call!r}. Change it.")
    module = _module(module_name, folder)
    if not hasattr(module, name):
        raise _unknown(f"name in {module_name}", name, _public(module))
    return getattr(module, name)


def _module(name: str, folder: Path) -> types.ModuleType:
    path = folder.resolve().joinpath(*name.split(".")).with_suffix(".py")
    # A link could lead out of the folder, and what it leads to would be run.
    if path.is_file() and path.resolve().is_relative_to(folder.resolve()):
        return module_at(path, "The module of a check")
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise InputError(
            f"The module of a check must be a file in the job's folder or an installed package, "
            f"got '{name}' ({error}). Add {path.name} beside the job file, or install it."
        ) from error


def _public(module: types.ModuleType) -> list[str]:
    return [name for name in vars(module) if not name.startswith("_")]
