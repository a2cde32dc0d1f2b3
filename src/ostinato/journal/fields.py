"""A JSON object that was saved, its values read by type. Knows nothing of what it means."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping
from typing import Any

from ostinato.errors import RunError

DAMAGED = "It is damaged: restore it from a copy, or name another with --journal."


def read_json(text: str, hook: Callable[[dict[str, Any]], Any] | None = None) -> Any:
    """Read JSON of a journal; `hook` makes a value of each object. Raises `RunError`."""
    try:
        return json.loads(text, object_hook=hook)
    except (TypeError, ValueError, RecursionError) as error:
        raise RunError(
            f"The journal must hold JSON where it has {text!r:.60}, got: {error}. {DAMAGED}"
        ) from None


def as_object(value: Any) -> dict[str, Any]:
    """Return a JSON object that was read. Raises `RunError` where it is something else."""
    if not isinstance(value, dict):
        raise RunError(f"The journal must hold a JSON object, got {value!r:.60}. {DAMAGED}")
    return value


class Fields:
    """Reads a saved object by type; a `default` is for keys that older records lack.

    Raises `RunError`, which names the key, for a value of another type.
    """

    def __init__(self, value: object) -> None:
        if not isinstance(value, Mapping):
            raise _wrong("what was saved", "a mapping", value)
        self.value: Mapping[str, Any] = value

    def __contains__(self, key: str) -> bool:
        return key in self.value

    def integer(self, key: str, default: int | None = None) -> int:
        """Return a whole number."""
        value: int = self._read(key, int, "a whole number", default)
        return value

    def number(self, key: str, default: float | None = None) -> float:
        """Return a number as a float."""
        value: float = self._read(key, (int, float), "a number", default)
        return float(value)

    def text(self, key: str, default: str | None = None) -> str:
        """Return a text."""
        value: str = self._read(key, str, "a text", default)
        return value

    def choice(self, key: str, choices: Collection[str]) -> str:
        """Return a text that is one of several."""
        value = self.text(key)
        if value not in choices:
            raise _wrong(repr(key), f"one of {', '.join(choices)}", value)
        return value

    def flag(self, key: str, default: bool | None = None) -> bool:
        """Return true or false."""
        value: bool = self._read(key, bool, "true or false", default)
        return value

    def items(self, key: str, default: list[Any] | None = None) -> list[Any]:
        """Return a list; a tuple counts as one."""
        value: list[Any] | tuple[Any, ...] = self._read(key, (list, tuple), "a list", default)
        return list(value)

    def texts(self, key: str) -> list[str]:
        """Return a list of texts."""
        values = self.items(key)
        if not all(isinstance(each, str) for each in values):
            raise _wrong(repr(key), "a list of texts", values)
        return values

    def mapping(self, key: str, default: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return a copy of a mapping."""
        value: Mapping[str, Any] = self._read(key, Mapping, "a mapping", default)
        return dict(value)

    def objects(self, key: str, default: list[Any] | None = None) -> list[Fields]:
        """Return a list of objects."""
        return [Fields(each) for each in self.items(key, default)]

    def _read(self, key: str, kind: Any, expected: str, default: Any) -> Any:
        value = self.value.get(key, default)
        if type(value) is kind:  # nearly always
            return value
        # A bool is an int to Python, and never where a number was saved.
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise _wrong(repr(key), expected, value)
        return value


def _wrong(what: str, expected: str, value: object) -> RunError:
    return RunError(
        f"The saved state must hold {expected} as {what}, got {value!r}. It is damaged: resume "
        "from an older checkpoint, or start the run again."
    )
