"""Reads the items of a job, whole, before any work. Knows no prompt, no model, no file format."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from ostinato.arguments import did_you_mean
from ostinato.errors import InputError
from ostinato.loop import content_keys, digest
from ostinato.row_files import NumberedRow, read_rows
from ostinato.text_files import problem_list

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
    """Read all items of a file of rows.

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
