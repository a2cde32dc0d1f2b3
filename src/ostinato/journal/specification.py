"""A run's specification: what was started, as a frozen configuration that JSON can hold.

Writes a configuration, reads it back, and compares two of them field by field. A field that an
older record lacks has its default, so that a new option orphans no run. Knows no kind of run.
"""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
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


class Difference(NamedTuple):
    """A field whose value is not the recorded one; `field` is its dotted name."""

    field: str
    was: JSON
    now: JSON

    def __str__(self) -> str:
        return f"{self.field} was {_shown(self.was)}, is {_shown(self.now)}"


# Writing ----------------------------------------------------------------------------------------


def config_to_json(config: object, folder: Path) -> dict[str, JSON]:
    """Return a configuration as JSON; paths in `folder` are written relative to it.

    Raises `InputError` for a value that JSON cannot hold, or that has a secret in it.
    """
    value = _written(config, _Place(folder.resolve()), type(config).__name__)
    assert isinstance(value, dict)
    return value


class _Place(NamedTuple):
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


def _written(value: object, place: _Place, name: str, *, is_place: bool = False) -> JSON:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        hints = _hints(type(value))
        return {
            each: _written(
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
            _written(each, place, f"{name}[{n}]", is_place=is_place)
            for n, each in enumerate(each_of)
        ]
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        return {key: _written(each, place, f"{name}.{key}") for key, each in value.items()}
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
        is_path = _is_place(hint) or Path in (hint, *get_args(hint))
        escapes = value.startswith(HERE) and ".." in Path(value).parts
        if is_path and (Path(value).is_absolute() or escapes):
            found.append(value)
    elif isinstance(value, list):
        each = get_args(hint)[0] if get_origin(hint) is tuple else None
        for one in value:
            _collect_outside(one, each, found)
    elif isinstance(value, dict):
        kinds = [each for each in (hint, *get_args(hint)) if isinstance(each, type)]
        hints = next((_hints(kind) for kind in kinds if dataclasses.is_dataclass(kind)), {})
        for name, one in value.items():
            _collect_outside(one, hints.get(name), found)


def chosen_fields(config: object, folder: Path) -> dict[str, JSON]:
    """Return by dotted name the fields of a configuration that do not have their defaults."""
    found: dict[str, JSON] = {}
    _collect_chosen(config, None, _Place(folder.resolve()), "", found)
    return found


def _collect_chosen(
    config: Any, usual: Any, place: _Place, name: str, found: dict[str, JSON]
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
            found |= _flat(dotted, _written(value, place, dotted))


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
        read: Config = _read(value, kind, _Place(folder.resolve()), kind.__name__)
    except (TypeError, ValueError, InputError) as error:  # the class checks its own values
        raise RunError(
            f"The recorded {kind.__name__} cannot be read: {str(error).rstrip('.')}. If a newer "
            "Ostinato wrote it, upgrade with pip install --upgrade ostinato."
        ) from error
    return read


def _read(value: Any, hint: Any, place: _Place, name: str) -> Any:
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


def _read_one_of(value: Any, hints: Sequence[Any], place: _Place, name: str) -> Any:
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


def _read_dataclass(value: Any, kind: type, place: _Place, name: str) -> Any:
    if not isinstance(value, dict):
        raise TypeError(f"{name} must be an object, got {value!r:.60}")
    hints = _hints(kind)
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
def _hints(kind: type) -> dict[str, Any]:
    hints = typing.get_type_hints(kind, include_extras=True)
    return {spec.name: hints[spec.name] for spec in dataclasses.fields(kind) if spec.init}


def _is_place(hint: Any) -> bool:
    hints = get_args(hint) if get_origin(hint) in (typing.Union, types.UnionType) else (hint,)
    return any(getattr(each, "__metadata__", ()) == PLACE for each in hints)


def _holds_places(hint: Any) -> bool:
    each = get_args(hint)[:1] if get_origin(hint) is tuple else ()
    return _is_place(hint) or any(_is_place(one) for one in each)


# Comparing --------------------------------------------------------------------------------------


def differences(before: object, now: object, folder: Path) -> list[Difference]:
    """Return the fields of `now` that have other values than in `before`, a configuration of the
    same class; fields that are free are left out."""
    found: list[Difference] = []
    _compare(before, now, _Place(folder.resolve()), "", found)
    return found


def _compare(
    before: object, now: object, place: _Place, name: str, found: list[Difference]
) -> None:
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        for key in {**before, **now}:
            _compare(before.get(key), now.get(key), place, f"{name}.{key}".lstrip("."), found)
        return
    if type(before) is not type(now) or not dataclasses.is_dataclass(now) or isinstance(now, type):
        was, today = (_written(each, place, name) for each in (before, now))
        if was != today:
            found.append(Difference(name, was, today))
        return
    free: frozenset[str] = getattr(now, "free", frozenset())
    hashes: frozenset[str] = getattr(now, "hashes", frozenset())
    for each, hint in _hints(type(now)).items():
        if each in free:
            continue
        one, other = getattr(before, each), getattr(now, each)
        if each in hashes and not (one and other):
            continue
        if _is_place(hint) and _was_at(one, other):
            continue
        _compare(one, other, place, f"{name}.{each}".lstrip("."), found)


def _was_at(before: str | None, now: str | None) -> bool:
    """Return whether a name is that of a file or folder that was recorded, and is gone now."""
    if not before or not now or not Path(before).is_absolute():
        return False
    return Path(now).absolute() == Path(before) and not Path(before).exists()


def amended(before: Config, now: Config) -> Config:
    """Return a configuration with those values of `now` that may differ: fields that are free, and
    hashes that were not known."""
    assert dataclasses.is_dataclass(before) and not isinstance(before, type)
    free: frozenset[str] = getattr(before, "free", frozenset())
    hashes: frozenset[str] = getattr(before, "hashes", frozenset())
    values = {}
    for name in _hints(type(before)):
        one, other = getattr(before, name), getattr(now, name)
        if name in free or (name in hashes and not one):
            values[name] = other
        elif dataclasses.is_dataclass(one) and type(one) is type(other):
            values[name] = amended(one, other)
    return dataclasses.replace(before, **values)


def require_same(
    run_name: str,
    changed: Sequence[Difference],
    fix: str = "Give the same values, or start another run.",
    spelled: Callable[[str], str] = str,
) -> None:
    """Raise `InputError` where a run has another configuration; it tells each field.

    `spelled` returns how a field is called where the user sets it, such as `--lr`.
    """
    if not changed:
        return
    told = "; ".join(str(each._replace(field=spelled(each.field))) for each in changed)
    raise InputError(
        f"The run {run_name!r} must keep the configuration it started with, but {told}. {fix}"
    )


def require_unchanged(what: str, recorded: str, now: str) -> None:
    """Raise `RunError` where files have another hash than a run recorded.

    `what` names them in the plural. An empty hash is unknown, and fits any.
    """
    if recorded and now and recorded != now:
        raise RunError(
            f"{what} must be as they were when the run started, got others: the hash was "
            f"{recorded[:12]}, is {now[:12]}. Put them back, or start another run."
        )


def _shown(value: JSON, most: int = 60) -> str:
    """Return a value for a message, cut where it is long."""
    text = "none" if value in (None, "", []) else value if isinstance(value, str) else repr(value)
    return text if len(text) <= most else f"{text[: most - 1]}…"
