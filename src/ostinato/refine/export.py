"""Results as a table, for other programs: Parquet, CSV or JSONL. Knows no journal and no job.

The columns are those of a line of the output, flat, then the item's own; what is nested is JSON.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

from ostinato.errors import InputError
from ostinato.output_files import replacing
from ostinato.parquet_files import ColumnType, load_pyarrow, write_parquet
from ostinato.refine.results import Result
from ostinato.row_files import row_format

FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""How a text begins that a spreadsheet takes for a formula."""

OWN = "item."
"""Stands before the name of an item's column where the result has a column of that name."""

RESULT_COLUMNS: dict[str, ColumnType] = {
    "id": "text",
    "reply": "text",
    "accepted": "boolean",
    "outcome": "text",
    "score": "number",
    "stopped": "text",
    "why": "text",
    "rounds": "integer",
    "backtracks": "integer",
    "tokens_reply": "integer",
    "tokens_accepted": "integer",
    "tokens_computed": "integer",
    "tokens_discarded": "integer",
    "tokens_prompt": "integer",
    "tokens_judged": "integer",
    "logprob": "number",
    "source": "text",
    "rule": "text",
    "refused_answer": "text",
    "verdicts": "text",
    "drafts": "text",
}

_encode = json.JSONEncoder(ensure_ascii=False, default=str).encode

Cell = str | int | float | bool | None


@dataclass(frozen=True, kw_only=True)
class Exported:
    """What an export has written; `formulas` counts the cells that a spreadsheet would run."""

    rows: int
    formulas: int = 0


def require_export(path: Path) -> None:
    """Raise `InputError` for a file that results cannot be exported to."""
    kind = row_format(path)
    if kind is None:
        raise InputError(
            f"--export must name a .parquet, .csv or .jsonl file, or .csv.gz or .jsonl.gz, got "
            f"{path.name}. Rename it."
        )
    if kind == "parquet":
        load_pyarrow()


def write_export(
    path: Path,
    results: Iterable[Result],
    columns: Iterable[Mapping[str, object]],
    *,
    details: bool = False,
) -> Exported:
    """Write results in the format of a file's name; a crash leaves the old file or the new one.

    `columns` are those of all items, which give the names and types of a table. Results are read
    once, and memory holds a block of them. JSONL has the lines of the output, with `details` or
    without; a table has all. Raises `InputError`
    for another name, `OutputError` where the file cannot be written.
    """
    require_export(path)
    counter = _Counter()
    with replacing(path) as file:
        match row_format(path):
            case "jsonl":
                with _packed(path, file) as out:
                    for result in results:
                        line = f"{_encode(result.line(details=details))}\n"
                        out.write(line.encode("utf-8", "backslashreplace"))
                        counter.rows += 1
            case "csv":
                types = item_columns(columns)
                with _packed(path, file) as out:
                    _write_csv(out, types, counter.counted(_rows(results, types)), counter)
            case _:
                types = item_columns(columns)
                rows = counter.counted(_rows(results, types))
                write_parquet(file, RESULT_COLUMNS | dict(named(types)), rows)
    return Exported(rows=counter.rows, formulas=counter.formulas)


class _Counter:
    def __init__(self) -> None:
        self.rows = self.formulas = 0

    def counted(self, rows: Iterable[list[Cell]]) -> Iterator[list[Cell]]:
        for row in rows:
            self.rows += 1
            yield row


@contextmanager
def _packed(path: Path, file: BinaryIO) -> Iterator[BinaryIO]:
    if path.suffix.lower() != ".gz":
        yield file
        return
    # Without name and time: the same results give the same bytes.
    with gzip.GzipFile("", "wb", fileobj=file, mtime=0) as packed:
        yield cast(BinaryIO, packed)


# Columns ----------------------------------------------------------------------------------------


def item_columns(rows: Iterable[Mapping[str, object]]) -> dict[str, ColumnType]:
    """Return the columns of the items with the type that holds all their values.

    Whole numbers and fractions are numbers; other mixtures, and what is nested, are texts.
    """
    found: dict[str, ColumnType | None] = {}
    for row in rows:
        for name, value in row.items():
            known = found.setdefault(name, None)
            if value is not None and known != "text":
                found[name] = _joined(known, _type_of(value))
    return {name: kind or "text" for name, kind in found.items()}


def _type_of(value: object) -> ColumnType:
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int) and -(2**63) <= value < 2**63:
        return "integer"
    return "number" if isinstance(value, float) else "text"


def _joined(one: ColumnType | None, other: ColumnType) -> ColumnType:
    if one is None or one == other:
        return other
    return "number" if {one, other} == {"integer", "number"} else "text"


def named(types: Mapping[str, ColumnType]) -> Iterator[tuple[str, ColumnType]]:
    """Yield the columns of the items under names that no other column has."""
    taken = {*RESULT_COLUMNS, *types}
    for name, kind in types.items():
        shown = name
        while shown in RESULT_COLUMNS or (shown != name and shown in taken):
            shown = OWN + shown
        yield shown, kind


# Rows -------------------------------------------------------------------------------------------


def flat(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of a result's row, as of `Result.to_json`, by the `RESULT_COLUMNS`."""
    scores = [0.0 if verdict["error"] else verdict["score"] for verdict in row["verdicts"]]
    values = {
        **row,
        **{f"tokens_{name}": count for name, count in row["tokens"].items()},
        "score": sum(scores) / len(scores) if scores else None,
        "stopped": row["stopped"]["kind"],
        "why": row["stopped"]["sentence"],
    }
    return {name: values[name] for name in RESULT_COLUMNS}


def _rows(results: Iterable[Result], types: Mapping[str, ColumnType]) -> Iterator[list[Cell]]:
    for result in results:
        values = flat(result.to_json())
        made = (_cell(values[name], kind) for name, kind in RESULT_COLUMNS.items())
        own = (_cell(result.columns.get(name), kind) for name, kind in types.items())
        yield [*made, *own]


def _cell(value: object, kind: ColumnType) -> Cell:
    if value is None:
        return None
    if kind == "text":
        return _text(value) if isinstance(value, str) else _json(value)
    assert isinstance(value, int | float)
    return float(value) if kind == "number" else value


def _json(value: object) -> str:
    return _text(_encode(value))


def _text(value: str) -> str:
    """Return a text that UTF-8 holds: a half character is spelled out, as in the output."""
    return value.encode("utf-8", "backslashreplace").decode()


# CSV --------------------------------------------------------------------------------------------


def _write_csv(
    file: BinaryIO, types: Mapping[str, ColumnType], rows: Iterable[list[Cell]], counter: _Counter
) -> None:
    text = io.TextIOWrapper(file, encoding="utf-8", newline="")
    writer = csv.writer(text)
    writer.writerow(map(_text, [*RESULT_COLUMNS, *(name for name, _ in named(types))]))
    for row in rows:
        counter.formulas += sum(map(_is_formula, row))
        writer.writerow([_csv_cell(cell) for cell in row])
    text.flush()
    text.detach()


def _csv_cell(cell: Cell) -> str | int | float:
    if isinstance(cell, bool):
        return str(cell).lower()  # as in JSON
    return "" if cell is None else cell


def _is_formula(cell: Cell) -> bool:
    return isinstance(cell, str) and cell.startswith(FORMULA)
