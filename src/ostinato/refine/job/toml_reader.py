"""Reads the tables of a job file key by key, and collects everything that is wrong with them.

Knows TOML and where a key stands in its text; knows no job.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from ostinato.arguments import did_you_mean
from ostinato.errors import InputError

Where = tuple[str | int, ...]
"""The way to a key: names of tables, and the numbers (from 0) of tables in a list."""

T = TypeVar("T")

_HEADER = re.compile(r"\s*(\[\[?)\s*([^\[\]]+?)\s*\]\]?\s*(?:#.*)?$")
_KEY = re.compile(r"\s*(?:\"([^\"]+)\"|'([^']+)'|([A-Za-z0-9_.-]+))\s*=")


class TomlSource:
    """The text of a TOML file, and on which line each of its keys stands."""

    def __init__(self, path: Path, text: str) -> None:
        self.path = path
        self.lines = _lines_of(text)

    def line(self, where: Where) -> int | None:
        """Return the line (from 1) of a key, or of the nearest table around it."""
        for length in range(len(where), 0, -1):
            found = self.lines.get(where[:length])
            if found is not None:
                return found
        return None


def _lines_of(text: str) -> dict[Where, int]:
    lines: dict[Where, int] = {}
    counts: dict[Where, int] = {}
    table: Where = ()
    inside = ""  # the quotes of a text of many lines that is open
    for number, line in enumerate(text.splitlines(), 1):
        if not inside:
            if header := _HEADER.match(line):
                table = _table_at(header[1] == "[[", header[2], counts)
                lines.setdefault(table, number)
            elif key := _KEY.match(line):
                name = key[1] or key[2] or key[3]
                lines.setdefault((*table, *name.split(".")), number)
        for quotes in ('"""', "'''"):
            if inside in ("", quotes) and line.count(quotes) % 2:
                inside = "" if inside else quotes
    return lines


def _table_at(listed: bool, name: str, counts: dict[Where, int]) -> Where:
    """Return the way to the table of a header; `[rule.prompt]` is in the last `[[rule]]`."""
    where: Where = ()
    parts = [part.strip().strip("\"'") for part in name.split(".")]
    for part in parts[:-1]:
        where = (*where, part)
        if where in counts:
            where = (*where, counts[where] - 1)
    where = (*where, parts[-1])
    if listed:
        counts[where] = counts.get(where, 0) + 1
        where = (*where, counts[where] - 1)
    return where


def _dotted(where: Where) -> str:
    return ".".join(str(part + 1) if isinstance(part, int) else part for part in where)


@dataclass
class Problems:
    """Everything that is wrong with a job, told together."""

    source: TomlSource
    found: list[str] = field(default_factory=list)

    def add(self, where: Where, sentence: str) -> None:
        """Note what is wrong with a key."""
        line = self.source.line(where)
        place = f"{self.source.path.name}, line {line}" if line else self.source.path.name
        key = _dotted(where)
        told = f"{place}, {key}: {sentence}" if key else f"{place}: {sentence}"
        self.found.append(told)

    def refuse(self) -> None:
        """Raise `InputError` with all that was found, if anything was."""
        if not self.found:
            return
        if len(self.found) == 1:
            raise InputError(self.found[0])
        lines = "\n".join(f"  {number}. {told}" for number, told in enumerate(self.found, 1))
        raise InputError(
            f"{self.source.path.name} must be mended in {len(self.found)} places:\n{lines}"
        )


class Table:
    """One table of a job file. Every key that is read is known; `close` refuses the others."""

    def __init__(self, values: Mapping[str, Any], problems: Problems, where: Where = ()) -> None:
        self.values = values
        self.problems = problems
        self.where = where
        self._known: list[str] = []

    def wrong(self, key: str, sentence: str) -> None:
        """Note what is wrong with a key of this table."""
        self.problems.add((*self.where, key) if key else self.where, sentence)

    def place(self, key: str) -> str:
        """Return where a key stands, for a message: `check.1.max (line 9)`."""
        where = (*self.where, key)
        line = self.problems.source.line(where) if self.has(key) else None
        return f"{_dotted(where)} (line {line})" if line else _dotted(where)

    def has(self, key: str) -> bool:
        """Tell whether the key is given."""
        return key in self.values

    def text(self, key: str, default: str = "", *, needed: str = "") -> str:
        """Read a text; `needed` is the mend that is told where it is missing."""
        value = self._read(key, default, needed)
        if isinstance(value, str) and (value.strip() or not needed):
            return value
        if key in self.values:
            self.wrong(key, f"It must be a text, got {value!r}. Put it in quotes.")
        return default

    def whole(self, key: str, default: T, *, least: int = 0) -> int | T:
        """Read a whole number of at least `least`."""
        value = self._read(key, default)
        if key not in self.values:
            return default
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            self.wrong(key, f"It must be a whole number of {least} or more, got {value!r}.")
            return default
        return value

    def number(
        self, key: str, default: T, right: Callable[[float], bool], expected: str
    ) -> float | T:
        """Read a number for which `right` holds; `expected` says which these are."""
        value = self._read(key, default)
        if key not in self.values:
            return default
        if isinstance(value, bool) or not isinstance(value, int | float) or not right(value):
            self.wrong(key, f"It must be {expected}, got {value!r}.")
            return default
        return float(value)

    def flag(self, key: str, default: bool) -> bool:
        """Read true or false."""
        value = self._read(key, default)
        if not isinstance(value, bool):
            self.wrong(key, f"It must be true or false, got {value!r}.")
            return default
        return value

    def choice(self, key: str, default: str, known: Iterable[str]) -> str:
        """Read one of a few names."""
        value = self._read(key, default)
        names = list(known)
        if value not in names:
            guess = did_you_mean(value, names) if isinstance(value, str) else ""
            self.wrong(key, f"It must be one of {', '.join(names)}, got {value!r}.{guess}")
            return default
        return str(value)

    def table(self, key: str) -> Table | None:
        """Read a table, or None where it is not given."""
        value = self._read(key, None)
        if value is None:
            return None
        if not isinstance(value, Mapping):
            self.wrong(key, f"It must be a table, got {value!r}. Write it as [{key}].")
            return None
        return Table(value, self.problems, (*self.where, key))

    def tables(self, key: str) -> list[Table]:
        """Read a list of tables."""
        value = self._read(key, [])
        if not isinstance(value, list) or not all(isinstance(one, Mapping) for one in value):
            self.wrong(key, f"It must be a list of tables. Write each as [[{key}]].")
            return []
        return [
            Table(one, self.problems, (*self.where, key, number))
            for number, one in enumerate(value)
        ]

    def close(self) -> None:
        """Refuse the keys that nobody read."""
        for key in self.values:
            if key not in self._known:
                names = ", ".join(self._known)
                guess = did_you_mean(key, self._known)
                self.wrong(key, f"This key is not known.{guess} Known here: {names}.")

    def _read(self, key: str, default: Any, needed: str = "") -> Any:
        if key not in self._known:
            self._known.append(key)
        if key not in self.values and needed:
            self.wrong(key, f"It is missing. {needed}")
        return self.values.get(key, default)


def read_toml(path: Path) -> tuple[dict[str, Any], TomlSource]:
    """Read a TOML file. Raises `InputError` with the line where it cannot be read."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise InputError(
            f"The job file must exist, got {path}. Write one to start from with: "
            f"ostinato refine --new {path.name}"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"The job file must be a text in UTF-8, got {path}: {error}.") from error
    try:
        return tomllib.loads(text), TomlSource(path, text)
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{path.name} must be TOML, got: {error}.") from error
