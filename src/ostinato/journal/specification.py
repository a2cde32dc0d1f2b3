"""A run's specification: what was started, as a frozen configuration that JSON can hold.

Writes a configuration and reads it back. A field that an older record lacks has its default, so
that a new option orphans no run. Knows no kind of run.
"""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any, ClassVar, NamedTuple, Self, TypeVar, get_args, get_origin

from ostinato.errors import InputError, RunError
from ostinato.journal.stops import JSON

Config = TypeVar("Config")

Place = Annotated[str, "place"]
"""A text that is a name, or the absolute path of a file or folder."""

PLACE = ("place",)

HERE = "./"
"""How a path in the journal's folder begins in the record: it stays right where both are moved."""

SECRET_WORDS = ("key", "token", "password", "secret", "signature")
"""What the name of a parameter in an address has in it where its value is a secret."""


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """The configuration of a kind of run: a frozen dataclass of numbers, texts, paths, tuples,
    mappings and other such dataclasses.

    `kind` is the name of the kind. Fields named in `free` may have other values when the run is
    resumed, such as where it ends and what it writes; those in `hashes` are of what may be gone,
    and are compared where both are known. `writes` are the fields that name what the run writes:
    whether that can be written is found out before any work. A secret is never among the values: a
    configuration has the name of the environment variable that holds it.
    """

    kind: ClassVar[str] = ""
    free: ClassVar[frozenset[str]] = frozenset()
    hashes: ClassVar[frozenset[str]] = frozenset()
    writes: ClassVar[tuple[str, ...]] = ()
    longer: ClassVar[str] = "For more, start a run of another name."
    """How to go beyond the end of a run that has no field `until`, in a sentence."""
    call: ClassVar[str] = ""
    """The call that resumes a run which only its own program can build, with `{name}` in it."""

    def resumed_by(self, name: str) -> str:
        """Return the call in Python that resumes the run of a name; "" where a command does."""
        return self.call.format(name=name)

    def outputs(self) -> list[tuple[str, Path]]:
        """Return the files and folders that the run writes, each with the name of its field."""
        named = [(name, getattr(self, name)) for name in self.writes]
        return [
            (name, path)
            for name, paths in named
            for path in (paths if isinstance(paths, tuple) else (paths,))
        ]

    def branched(self, name: str) -> Self:
        """Return the configuration of a branch called `name`: with files of its own to write."""
        return self

    def trusted(self) -> list[str]:
        """Say what building the run does that its owner must trust, such as running code."""
        return []


def beside(path: Path, name: str, suffix: str = "") -> Path:
    """Return where a branch called `name` writes, in the folder of `path` and never to it."""
    other = path.with_name(name + suffix)
    return other if other != path else path.with_name(f"{name}-2{suffix}")


def each_beside(paths: Sequence[Path], name: str) -> tuple[Path, ...]:
    """Return where a branch writes several files: of those that would be one, each has its name."""
    suffixes = Counter(path.suffix for path in paths)
    return tuple(
        beside(path, name, f"-{path.name}" if suffixes[path.suffix] > 1 else path.suffix)
        for path in paths
    )


# Writing ----------------------------------------------------------------------------------------


def config_to_json(config: object, folder: Path) -> dict[str, JSON]:
    """Return a configuration as JSON; paths in `folder` are written relative to it.

    Raises `InputError` for a value that JSON cannot hold, or that has a secret in it.
    """
    value = written(config, PathBase(folder.resolve()), type(config).__name__)
    assert isinstance(value, dict)
    return value


class PathBase(NamedTuple):
    """The folder that paths are relative to."""

    folder: Path

    def relative(self, path: Path) -> str:
        """Return a path as it is recorded; a relative one lies in the working folder."""
        absolute = path.absolute()
        for one in (absolute, absolute.resolve()):
            if one.is_relative_to(self.folder):
                return HERE + one.relative_to(self.folder).as_posix()
        return str(absolute)

    def absolute(self, text: str) -> Path:
        """Return the path that was recorded."""
        return self.folder / text.removeprefix(HERE) if text.startswith(HERE) else Path(text)


def written(value: object, place: PathBase, name: str, *, is_place: bool = False) -> JSON:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        hints = field_hints(type(value))
        return {
            each: written(
                getattr(value, each), place, f"{name}.{each}", is_place=_holds_places(hints[each])
            )
            for each in hints
        }
    if isinstance(value, Path):
        return place.relative(value)
    if isinstance(value, str):
        _refuse_secret(value, name)
        return place.relative(Path(value)) if is_place and Path(value).is_absolute() else value
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)  # JSON has no such number; `float` reads it back
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, list | tuple | set | frozenset):
        each_of = sorted(value) if isinstance(value, set | frozenset) else value
        return [
            written(each, place, f"{name}[{n}]", is_place=is_place)
            for n, each in enumerate(each_of)
        ]
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        return {key: written(each, place, f"{name}.{key}") for key, each in value.items()}
    raise InputError(
        f"{name} must be made of numbers, texts, paths, tuples, mappings and dataclasses, got a "
        f"{type(value).__name__}."
    )


def _refuse_secret(text: str, name: str) -> None:
    """Raise `InputError` for an address with a password or a key in it: the record keeps it."""
    if "://" not in text or any(letter.isspace() for letter in text):
        return
    from urllib.parse import parse_qsl, urlsplit

    try:
        parts = urlsplit(text)
        named = [key for key, _ in parse_qsl(parts.query) if _is_secret(key)]
    except ValueError:
        return
    if parts.password or named:
        what = "a password" if parts.password else f"the parameter {named[0]!r}"
        raise InputError(
            f"{name} must be an address without secrets, got one with {what}. Leave it out, and "
            "name the environment variable that holds it."
        )


def _is_secret(name: str) -> bool:
    return any(word in name.lower() for word in SECRET_WORDS)


def places_outside(config: object, folder: Path) -> list[str]:
    """Return the paths of a configuration that do not lie in a folder."""
    found: list[str] = []
    _collect_outside(config_to_json(config, folder), type(config), found)
    return found


def _collect_outside(value: Any, hint: Any, found: list[str]) -> None:
    if isinstance(value, str):
        is_path = names_place(hint) or Path in (hint, *get_args(hint))
        escapes = value.startswith(HERE) and ".." in Path(value).parts
        if is_path and (Path(value).is_absolute() or escapes):
            found.append(value)
    elif isinstance(value, list):
        each = get_args(hint)[0] if get_origin(hint) is tuple else None
        for one in value:
            _collect_outside(one, each, found)
    elif isinstance(value, dict):
        kinds = [each for each in (hint, *get_args(hint)) if isinstance(each, type)]
        hints = next((field_hints(kind) for kind in kinds if dataclasses.is_dataclass(kind)), {})
        for name, one in value.items():
            _collect_outside(one, hints.get(name), found)


def chosen_fields(config: object, folder: Path) -> dict[str, JSON]:
    """Return by dotted name the fields of a configuration that do not have their defaults."""
    found: dict[str, JSON] = {}
    _collect_chosen(config, None, PathBase(folder.resolve()), "", found)
    return found


def _collect_chosen(
    config: Any, usual: Any, place: PathBase, name: str, found: dict[str, JSON]
) -> None:
    """Collect the fields that differ from those of `usual`, or from the defaults without one."""
    for spec in dataclasses.fields(config):
        if not spec.init:
            continue
        default = _default_of(spec) if usual is None else getattr(usual, spec.name)
        value, dotted = getattr(config, spec.name), f"{name}.{spec.name}".lstrip(".")
        if value == default:
            continue
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            same = type(value) is type(default)
            _collect_chosen(value, default if same else None, place, dotted, found)
        else:
            found |= _flat(dotted, written(value, place, dotted))


def _flat(name: str, value: JSON) -> dict[str, JSON]:
    """Return a value by its name, and those of a mapping by their own."""
    if not isinstance(value, dict) or not value:
        return {name: value}
    return {inner: v for key in value for inner, v in _flat(f"{name}.{key}", value[key]).items()}


def _default_of(spec: dataclasses.Field[Any]) -> object:
    if spec.default_factory is not dataclasses.MISSING:
        return spec.default_factory()
    return spec.default


# Reading ----------------------------------------------------------------------------------------


def config_from_json(kind: type[Config], value: object, folder: Path) -> Config:
    """Return the configuration that was written; fields that are missing have their defaults.

    Raises `RunError` where it is no configuration of this kind, or has fields of a newer version.
    """
    try:
        read: Config = _read(value, kind, PathBase(folder.resolve()), kind.__name__)
    except (TypeError, ValueError, InputError) as error:  # the class checks its own values
        raise RunError(
            f"The recorded {kind.__name__} cannot be read: {str(error).rstrip('.')}. If a newer "
            "Ostinato wrote it, upgrade with pip install --upgrade ostinato."
        ) from error
    return read


def _read(value: Any, hint: Any, place: PathBase, name: str) -> Any:
    if getattr(hint, "__metadata__", ()) == PLACE:
        text = _read(value, str, place, name)
        return str(place.absolute(text)) if text.startswith(HERE) else text
    origin, args = get_origin(hint) or hint, get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return _read_one_of(value, args, place, name)
    if isinstance(origin, type) and dataclasses.is_dataclass(origin):
        return _read_dataclass(value, origin, place, name)
    if origin is tuple:
        if not isinstance(value, list):
            raise TypeError(f"{name} must be a list, got {value!r:.60}")
        each = args[:1] * len(value) if args[1:] == (...,) else args
        if len(each) != len(value):
            raise TypeError(f"{name} must have {len(each)} values, got {len(value)}")
        pairs = zip(value, each, strict=True)
        return tuple(_read(v, h, place, f"{name}[{n}]") for n, (v, h) in enumerate(pairs))
    if origin is Path:
        if not isinstance(value, str):
            raise TypeError(f"{name} must be a path, got {value!r:.60}")
        return place.absolute(value)
    if origin is float and isinstance(value, str | int) and not isinstance(value, bool):
        return float(value)
    if origin in (str, int, bool) and type(value) is not origin:
        raise TypeError(f"{name} must be of type {origin.__name__}, got {value!r:.60}")
    return value


def _read_one_of(value: Any, hints: Sequence[Any], place: PathBase, name: str) -> Any:
    """Read a value as the first of several types that it fits."""
    if value is None and type(None) in hints:
        return None
    error: Exception | None = None
    for hint in hints:
        if hint is type(None):
            continue
        try:
            return _read(value, hint, place, name)
        except (TypeError, ValueError, InputError) as tried:
            error = error or tried
    raise error or TypeError(f"{name} must be of another type, got {value!r:.60}")


def _read_dataclass(value: Any, kind: type, place: PathBase, name: str) -> Any:
    if not isinstance(value, dict):
        raise TypeError(f"{name} must be an object, got {value!r:.60}")
    hints = field_hints(kind)
    unknown = sorted(set(value) - set(hints))
    if unknown:
        raise TypeError(f"{name} must have no other fields, got {', '.join(unknown)}")
    missing = sorted(set(required_fields(kind)) - set(value))
    if missing:
        raise TypeError(f"{name} must have the fields {', '.join(missing)}, which it lacks")
    return kind(
        **{each: _read(value[each], hints[each], place, f"{name}.{each}") for each in value}
    )


def required_fields(kind: type) -> list[str]:
    """Return the names of the fields without a default."""
    return [
        spec.name
        for spec in dataclasses.fields(kind)
        if spec.init
        and spec.default is dataclasses.MISSING
        and spec.default_factory is dataclasses.MISSING
    ]


@cache
def field_hints(kind: type) -> dict[str, Any]:
    hints = typing.get_type_hints(kind, include_extras=True)
    return {spec.name: hints[spec.name] for spec in dataclasses.fields(kind) if spec.init}


def names_place(hint: Any) -> bool:
    hints = get_args(hint) if get_origin(hint) in (typing.Union, types.UnionType) else (hint,)
    return any(getattr(each, "__metadata__", ()) == PLACE for each in hints)


def _holds_places(hint: Any) -> bool:
    each = get_args(hint)[:1] if get_origin(hint) is tuple else ()
    return names_place(hint) or any(names_place(one) for one in each)
