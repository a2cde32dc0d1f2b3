"""Are today's settings those of the run? Two configurations, compared field by field."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from ostinato.errors import InputError, RunError
from ostinato.journal.specification import (
    Config,
    PathBase,
    field_hints,
    names_place,
    written,
)
from ostinato.journal.stops import JSON


class Difference(NamedTuple):
    """A field whose value is not the recorded one; `field` is its dotted name."""

    field: str
    was: JSON
    now: JSON

    def __str__(self) -> str:
        return f"{self.field} was {_shown(self.was)}, is {_shown(self.now)}"


def differences(before: object, now: object, folder: Path) -> list[Difference]:
    """Return the fields of `now` that have other values than in `before`, a configuration of the
    same class; fields that are free are left out."""
    found: list[Difference] = []
    _compare(before, now, PathBase(folder.resolve()), "", found)
    return found


def _compare(
    before: object, now: object, place: PathBase, name: str, found: list[Difference]
) -> None:
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        for key in {**before, **now}:
            _compare(before.get(key), now.get(key), place, f"{name}.{key}".lstrip("."), found)
        return
    if type(before) is not type(now) or not dataclasses.is_dataclass(now) or isinstance(now, type):
        was, today = (written(each, place, name) for each in (before, now))
        if was != today:
            found.append(Difference(name, was, today))
        return
    free: frozenset[str] = getattr(now, "free", frozenset())
    hashes: frozenset[str] = getattr(now, "hashes", frozenset())
    for each, hint in field_hints(type(now)).items():
        if each in free:
            continue
        one, other = getattr(before, each), getattr(now, each)
        if each in hashes and not (one and other):
            continue
        if names_place(hint) and _was_at(one, other):
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
    for name in field_hints(type(before)):
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
