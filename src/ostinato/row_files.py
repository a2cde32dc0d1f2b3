"""Reads files of rows, one row at a time: JSONL, CSV and Parquet. Knows no meaning of a column."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from ostinato.arguments import counted
from ostinato.errors import InputError
from ostinato.parquet_files import iter_parquet
from ostinato.text_files import LONGEST_LINE, FileProblems, iter_jsonl, iter_lines

RowFormat = Literal["jsonl", "csv", "parquet"]

_FORMATS: dict[str, RowFormat] = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".csv": "csv",
    ".parquet": "parquet",
}
_PACKED = ".gz"

CSV_ROWS = 256
"""Rows of CSV that are read at a time."""

NumberedRow = tuple[int, dict[str, Any]]
"""A row's first line, or its number in Parquet, from 1; and its columns."""


def read_rows(path: Path, *, keep_halves: bool = False) -> list[NumberedRow]:
    """Return the rows of a file with their lines, as `iter_rows` yields them."""
    return list(iter_rows(path, keep_halves=keep_halves))


def row_format(path: Path) -> RowFormat | None:
    """Return the format of a file of rows by its name; None for another file."""
    ending = path.suffix.lower()
    if ending != _PACKED:
        return _FORMATS.get(ending)
    packed = _FORMATS.get(Path(path.stem).suffix.lower())
    return None if packed == "parquet" else packed  # Parquet compresses its columns itself


def place(path: Path, number: int | str) -> str:
    """Return how a message names a row of a file, such as `line 3`."""
    return f"{'row' if row_format(path) == 'parquet' else 'line'} {number}"


def iter_rows(path: Path, *, keep_halves: bool = False) -> Iterator[NumberedRow]:
    """Yield the rows of a file with their places; memory holds a few of them.

    Raises `InputError` that lists every row that cannot be read, after the last row; for a file
    that cannot be read on, at that place. With `keep_halves`, half characters in JSON are left to
    whoever uses the row.
    """
    match row_format(path):
        case "jsonl":
            return iter_jsonl(path, keep_halves=keep_halves)
        case "csv":
            return _iter_csv(path)
        case "parquet":
            return iter_parquet(path)
    raise InputError(
        f"The input must be a .jsonl, .csv or .parquet file, or .jsonl.gz or .csv.gz, got "
        f"{path.name}. Convert or rename it."
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
            yield f"line 1: column names must differ, got '{name}' {counted(times, 'times')}"
