"""Reads the tables of a job file key by key, and collects every problem, so that all are shown.

Knows TOML and the line of each key; knows no job.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from ostinato.arguments import NumberRange, did_you_mean
from ostinato.errors import InputError
from ostinato.text_files import read_toml

KeyPath = tuple[str | int, ...]
"""Where a key is: the names of its tables, and the index of a table in a list."""

T = TypeVar("T")
Name = TypeVar("Name", bound=str)

_HEADER = re.compile(r"\s*(\[\[?)\s*([^\[\]]+?)\s*\]\]?\s*(?:#.*)?$")
_KEY = re.compile(r"\s*(?:\"([^\"]+)\"|'([^']+)'|([A-Za-z0-9_.-]+))\s*=")


class TomlSource:
    """A TOML file, with the line (from 1) of each of its keys."""

    def __init__(self, path: Path, text: str) -> None:
        self.path = path
        self.lines = _lines_of(text)

    def line(self, key_path: KeyPath) -> int | None:
        """Return the line of a key, or of the nearest table around it."""
        for length in range(len(key_path), 0, -1):
            line = self.lines.get(key_path[:length])
            if line is not None:
                return line
        return None


def _lines_of(text: str) -> dict[KeyPath, int]:
    """Return the line of each key. `tomllib` parses values but reports no positions."""
    lines: dict[KeyPath, int] = {}
    counts: dict[KeyPath, int] = {}
    table: KeyPath = ()
    open_quotes = ""  # of a multi-line text, which can contain lines that look like keys
    for number, line in enumerate(text.split("\n"), 1):
        if not open_quotes:
            if header := _HEADER.match(line):
                table = _table_at(header[1] == "[[", header[2], counts)
                # The first line of a table counts: dotted headers can name it again.
                lines.setdefault(table, number)
            elif key := _KEY.match(line):
                name = key[1] or key[2] or key[3]
                lines.setdefault((*table, *name.split(".")), number)
        for quotes in ('"""', "'''"):
            # An odd number of them opens a text or closes it.
            if open_quotes in ("", quotes) and line.count(quotes) % 2:
                open_quotes = "" if open_quotes else quotes
    return lines


def _table_at(listed: bool, name: str, counts: dict[KeyPath, int]) -> KeyPath:
    """Return the path of a header's table; `[rule.prompt]` is a table of the last `[[rule]]`."""
    key_path: KeyPath = ()
    parts = [part.strip().strip("\"'") for part in name.split(".")]
    for part in parts[:-1]:
        key_path = (*key_path, part)
        if key_path in counts:
            key_path = (*key_path, counts[key_path] - 1)
    key_path = (*key_path, parts[-1])
    if listed:
        counts[key_path] = counts.get(key_path, 0) + 1
        key_path = (*key_path, counts[key_path] - 1)
    return key_path


def _dotted(key_path: KeyPath) -> str:
    return ".".join(str(part + 1) if isinstance(part, int) else part for part in key_path)


@dataclass
class Problems:
    """Every problem of a job file, raised together so that one edit can fix all."""

    source: TomlSource
    found: list[str] = field(default_factory=list)

    def add(self, key_path: KeyPath, sentence: str) -> None:
        """Record what is wrong with a key, with its file and line."""
        line = self.source.line(key_path)
        name = self.source.path.name
        location = f"{name}, line {line}" if line else name
        key = _dotted(key_path)
        self.found.append(f"{location}, {key}: {sentence}" if key else f"{location}: {sentence}")

    def refuse(self) -> None:
        """Raise `InputError` with every problem, if there is one."""
        if not self.found:
            return
        # One problem needs no list.
        if len(self.found) == 1:
            raise InputError(self.found[0])
        lines = "\n".join(f"  {number}. {one}" for number, one in enumerate(self.found, 1))
        raise InputError(f"{self.source.path.name} has {len(self.found)} problems:\n{lines}")


class Table:
    """One table of a job file. A key that was read is known; `close` refuses all others."""

    def __init__(
        self, values: Mapping[str, Any], problems: Problems, key_path: KeyPath = ()
    ) -> None:
        self.values = values
        self.problems = problems
        self.key_path = key_path
        self._known: list[str] = []

    def add_problem(self, key: str, sentence: str) -> None:
        """Record what is wrong with a key; without one, with the table."""
        self.problems.add((*self.key_path, key) if key else self.key_path, sentence)

    def location(self, key: str) -> str:
        """Return where a key is, for a message: `check.1.max (line 9)`."""
        key_path = (*self.key_path, key)
        line = self.problems.source.line(key_path) if self.has(key) else None
        return f"{_dotted(key_path)} (line {line})" if line else _dotted(key_path)

    def has(self, key: str) -> bool:
        """Return whether the table sets a key."""
        return key in self.values

    def expect(self, key: str) -> None:
        """Make a key known, without reading it."""
        if key not in self._known:
            self._known.append(key)

    def text(self, key: str, default: str = "", *, if_missing: str = "") -> str:
        """Read a text. With `if_missing`, the fix to show, it is required and must not be blank."""
        value = self._read(key, default, if_missing)
        if isinstance(value, str) and (value.strip() or not if_missing):
            return value
        if key in self.values and isinstance(value, str):
            self.add_problem(key, f"It must not be empty, got {value!r}. {if_missing}")
        elif key in self.values:
            self.add_problem(key, f"It must be a text, got {value!r}. Put it in quotes.")
        return default

    def integer(self, key: str, default: T, *, least: int = 0) -> int | T:
        """Read a whole number of at least `least`."""
        value = self._read(key, default)
        if key not in self.values:
            return default
        # In Python, true is an int.
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            self.add_problem(key, f"It must be a whole number of {least} or more, got {value!r}.")
            return default
        return value

    def number(
        self, key: str, default: T, valid: Callable[[float], bool], expected: str
    ) -> float | T:
        """Read a number; `expected` describes the valid ones in the message."""
        value = self._read(key, default)
        if key not in self.values:
            return default
        if isinstance(value, bool) or not isinstance(value, int | float) or not valid(value):
            self.add_problem(key, f"It must be {expected}, got {value!r}.")
            return default
        return float(value)

    def ranged(self, key: str, default: Any, numbers: NumberRange) -> Any:
        """Read a number of a range."""
        value = self._read(key, default)
        if numbers.includes(value):
            return value if numbers.whole else float(value)
        self.add_problem(key, f"It must be {numbers.expected}, got {value!r}.")
        return default

    def flag(self, key: str, default: bool) -> bool:
        """Read true or false."""
        value = self._read(key, default)
        if not isinstance(value, bool):
            self.add_problem(key, f"It must be true or false, got {value!r}.")
            return default
        return value

    def choice(self, key: str, default: Name, choices: Iterable[Name]) -> Name:
        """Read one of a few names."""
        value = self._read(key, default)
        names = list(choices)
        for name in names:
            if name == value:
                return name
        guess = did_you_mean(value, names) if isinstance(value, str) else ""
        self.add_problem(key, f"It must be one of {', '.join(names)}, got {value!r}.{guess}")
        return default

    def table(self, key: str) -> Table | None:
        """Read a table; None if it is not set."""
        value = self._read(key, None)
        if value is None:
            return None
        if not isinstance(value, Mapping):
            self.add_problem(key, f"It must be a table, got {value!r}. Write it as [{key}].")
            return None
        return Table(value, self.problems, (*self.key_path, key))

    def tables(self, key: str) -> list[Table]:
        """Read a list of tables; empty if it is not set."""
        value = self._read(key, [])
        if not isinstance(value, list) or not all(isinstance(one, Mapping) for one in value):
            self.add_problem(key, f"It must be a list of tables. Write each as [[{key}]].")
            return []
        return [
            Table(one, self.problems, (*self.key_path, key, number))
            for number, one in enumerate(value)
        ]

    def close(self) -> None:
        """Refuse every key that was not read."""
        for key in self.values:
            if key not in self._known:
                names = ", ".join(self._known)
                guess = did_you_mean(key, self._known)
                self.add_problem(key, f"This key is not known.{guess} Known here: {names}.")

    def _read(self, key: str, default: Any, if_missing: str = "") -> Any:
        self.expect(key)
        if key not in self.values and if_missing:
            self.add_problem(key, f"It is missing. {if_missing}")
        return self.values.get(key, default)


def read_job_toml(path: Path) -> tuple[dict[str, Any], TomlSource]:
    """Read a TOML file. Raises `InputError`, with the line of a syntax error."""
    missing = (
        f"The job file must exist, got {path}. Write one to start from with: "
        f"ostinato refine --new {path.name}"
    )
    values, text = read_toml(path, missing=missing)
    return values, TomlSource(path, text)
