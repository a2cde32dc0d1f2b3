"""Reads the items of a job: JSONL or CSV, whole, before any work. Knows no prompt and no model."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from ostinato.arguments import did_you_mean
from ostinato.errors import InputError
from ostinato.loop import content_keys, digest
from ostinato.text_files import (
    LONGEST_LINE,
    FileProblems,
    iter_jsonl,
    iter_lines,
    problem_list,
)

CSV_ROWS = 256
"""Rows of CSV that are read at a time."""

LINES = 8
"""How many of the lines without a column are named."""


@dataclass(frozen=True, slots=True)
class Item:
    """One row of the input.

    `key` is its id, or the hash of its content and its occurrence: never the row's number, so that
    rows may move. `index` is its position in the input, from 0; `line` the first line of it in the
    file, from 1.
    """

    key: str
    index: int
    columns: Mapping[str, object]
    line: int = 0

    @property
    def digest(self) -> str:
        """The hash of its columns."""
        return digest(self.columns)


def read_items(
    path: Path, *, id_column: str = "", needed: Mapping[str, str] | None = None
) -> list[Item]:
    """Read all items of a JSONL or CSV file, by its suffix.

    `needed` maps each required column to what needs it. Raises `InputError` that lists the problems
    with file, line and column.
    """
    rows = read_rows(path, keep_halves=True)  # a half character sets aside its own item only
    if not rows:
        raise InputError(f"{path.name} must hold at least one item, got none. Add items to it.")
    id_needed = {id_column: "the id"} if id_column else {}
    problems = list(_missing(rows, {**id_needed, **(needed or {})}))
    if not problems and id_column:
        problems = list(_bad_ids(rows, id_column))
    if problems:
        raise InputError(problem_list(path, problems))
    # Without ids, a key survives moved rows: it depends on the content only.
    keys = _ids(rows, id_column) if id_column else content_keys([row for _, row in rows])
    numbered = enumerate(zip(keys, rows, strict=True))
    return [Item(key, index, row, line) for index, (key, (line, row)) in numbered]


NumberedRow = tuple[int, dict[str, Any]]
"""The first line of a row in the file, from 1, and its columns."""


def read_rows(path: Path, *, keep_halves: bool = False) -> list[NumberedRow]:
    """Return the rows of a file with their lines, as `iter_rows` yields them."""
    return list(iter_rows(path, keep_halves=keep_halves))


def iter_rows(path: Path, *, keep_halves: bool = False) -> Iterator[NumberedRow]:
    """Yield the rows of a JSONL or CSV file with their lines; memory holds a few of them.

    Raises `InputError` that lists every row that cannot be read, after the last row; for a file
    that cannot be read on, at that place. With `keep_halves`, half characters in JSON are left to
    whoever uses the row.
    """
    match path.suffix.lower():
        case ".jsonl" | ".ndjson":
            return iter_jsonl(path, keep_halves=keep_halves)
        case ".csv":
            return _iter_csv(path)
    raise InputError(
        f"The input must be a .jsonl or .csv file, got {path.name}. Convert or rename it."
    )


def _iter_csv(path: Path) -> Iterator[NumberedRow]:
    problems = FileProblems(path)
    reader = csv.reader(iter_lines(path, newline=""), strict=True)
    header: list[str] | None = None
    for line, cells in _cells(reader, problems):
        if header is None:
            header = cells
            for problem in _bad_header(header):
                problems.add(problem)
        elif len(cells) == len(header):
            yield line, dict(zip(header, cells, strict=True))
        elif cells:
            problems.add(
                f"line {line}: a row must have {len(header)} cells like the header, got "
                f"{len(cells)}"
            )
    problems.refuse()


def _cells(reader: Any, problems: FileProblems) -> Iterator[tuple[int, list[str]]]:
    """Yield the rows of a CSV reader with their first lines; what ends it is a problem."""
    line, error = 1, None
    while error is None:
        rows: list[tuple[int, list[str]]] = []
        limit = csv.field_size_limit(LONGEST_LINE)
        try:
            for cells in islice(reader, CSV_ROWS):
                rows.append((line, cells))
                line = reader.line_num + 1
        except csv.Error as raised:
            error = raised
        finally:
            csv.field_size_limit(limit)  # it is Python's own, for all readers of this process
        yield from rows
        if error is None and not rows:
            return
    problems.add(f"line {reader.line_num}: it must be CSV: {error}")


def _bad_header(header: list[str]) -> Iterator[str]:
    if len(header) == 1 and any(sign in header[0] for sign in ";\t"):
        yield f"line 1: cells must be separated by commas, got {header[0]!r}"
    for name, times in Counter(header).items():
        if not name.strip():
            yield "line 1: every column must have a name, got an empty one"
        elif times > 1:
            yield f"line 1: column names must differ, got '{name}' {times} times"


def _missing(rows: list[NumberedRow], needed: Mapping[str, str]) -> Iterator[str]:
    for column, needed_by in needed.items():
        lines = [number for number, row in rows if column not in row]
        if not lines:
            continue
        known = dict.fromkeys(name for _, row in rows for name in row)
        # Once for a column, however many rows lack it.
        if len(lines) == len(rows):
            names = f" The columns are: {', '.join(known)}." if known else ""
            place = f"line {lines[0]}: " if len(rows) == 1 else "every row: "
        else:
            shown = ", ".join(map(str, lines[:LINES])) + (", …" if len(lines) > LINES else "")
            names, place = "", f"line{'s' * (len(lines) > 1)} {shown}: "
        guess = did_you_mean(column, (name for name in known if name != column))
        yield f"{place}the column '{column}' is missing; {needed_by} needs it.{guess}{names}"


def _bad_ids(rows: list[NumberedRow], column: str) -> Iterator[str]:
    seen: dict[str, int] = {}
    for number, row in rows:
        value = row[column]
        # In Python, true is an int.
        if isinstance(value, bool) or not isinstance(value, str | int) or not str(value).strip():
            yield f"line {number}: '{column}' must be a text or a whole number, got {value!r}"
        elif str(value) in seen:
            yield (
                f"line {number}: '{column}' must be unique, got {str(value)!r} as on "
                f"line {seen[str(value)]}"
            )
        else:
            seen[str(value)] = number


def _ids(rows: list[NumberedRow], column: str) -> list[str]:
    # The journal's keys are UTF-8; a half character is spelled out.
    return [str(row[column]).encode("utf-8", "backslashreplace").decode() for _, row in rows]
