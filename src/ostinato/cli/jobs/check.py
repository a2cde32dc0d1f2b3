"""`ostinato check`: judge existing texts by a job's checks."""

from __future__ import annotations

import json
import sqlite3
import sys
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import click

from ostinato.checks import SOURCES, Grounded, judge_all
from ostinato.cli.run_loop import Exit
from ostinato.errors import InputError
from ostinato.loop import Verdict
from ostinato.refine import STANDARD_INPUT, Job, checked_items, prepare, read_job
from ostinato.row_files import iter_rows, place, row_format
from ostinato.text_files import half_character, iter_lines


@dataclass(frozen=True)
class Judged:
    """The verdicts of the checks on a text; `error` says why it cannot be judged."""

    id: str
    verdicts: Sequence[Verdict]
    error: str = ""

    @property
    def passed(self) -> bool:
        """Whether every check passed."""
        return not self.error and all(verdict.passed for verdict in self.verdicts)


class Text(NamedTuple):
    """A text with its id, the columns that its checks may read, and why it cannot be judged."""

    id: str
    text: str
    columns: Mapping[str, object]
    error: str = ""


@click.command()
@click.argument("job_file", metavar="JOB.toml", type=click.Path(path_type=Path))
@click.argument("file", metavar="FILE", type=click.Path(path_type=Path))
@click.option(
    "--column",
    default="reply",
    show_default=True,
    help="Column of the text, in a file of rows.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per text.")
def check(job_file: Path, file: Path, column: str, as_json: bool) -> None:
    """Judge the texts of FILE by the checks of JOB.toml.

    FILE is JSONL, CSV or Parquet with a column of texts, or plain text with one text per line.
    Columns that checks compare with come from the same row, or from the job's input by the row's
    id. Exit codes: 0 all passed; 1 some did not; 2 an argument or a file is wrong.
    """
    job = read_job(job_file)
    others = _InputColumns(job)
    texts = _texts(job, file, column, others)
    if row_format(file) is not None:
        # All are read before a model of a check is loaded, so that a bad row costs no time.
        deque(texts, maxlen=0)
        texts = _texts(job, file, column, others)
    first = next(texts, None)
    if first is None:
        raise InputError(f"{file.name} must hold at least one text, got none. Add texts to it.")
    prepare(job.checks)
    count = passed = 0
    for text in chain([first], texts):
        judged = _judged(job, text)
        _print(judged, as_json)
        count, passed = count + 1, passed + judged.passed
    if not as_json:
        click.echo(f"{passed} of {count} passed every check.")
    sys.exit(Exit.DONE if passed == count else Exit.NOT_ALL)


def _judged(job: Job, text: Text) -> Judged:
    if text.error:
        return Judged(text.id, (), text.error)
    return Judged(text.id, judge_all(job.checks, text.text, text.columns))


class _InputColumns:
    """The columns of the job's items by their ids; the input is read when one is first needed.

    They are in a temporary file: there may be more than the memory holds.
    """

    def __init__(self, job: Job) -> None:
        self._job = job

    def of(self, key: str) -> Mapping[str, object]:
        """Return the columns of an item; none where no item has this id."""
        if self._job.input == STANDARD_INPUT:
            return {}
        query = "SELECT columns FROM items WHERE key = ?"
        found = self._stored.execute(query, (key,)).fetchone()
        return json.loads(found[0]) if found else {}

    @cached_property
    def _stored(self) -> sqlite3.Connection:
        stored = sqlite3.connect("")  # SQLite keeps it in a file that it deletes
        stored.execute("CREATE TABLE items (key TEXT PRIMARY KEY, columns TEXT) WITHOUT ROWID")
        with checked_items(self._job) as items:
            rows = ((item.key, json.dumps(item.columns)) for item in items)
            stored.executemany("INSERT INTO items VALUES (?, ?)", rows)
        return stored


def _texts(job: Job, file: Path, column: str, others: _InputColumns) -> Iterator[Text]:
    needed = {c for check in job.checks for c in check.columns}
    if row_format(file) is not None:
        return _rows(job, file, column, needed, others)
    _require_no_columns(job, file, needed)
    return _lines(file)


def _rows(
    job: Job, file: Path, column: str, needed: set[str], others: _InputColumns
) -> Iterator[Text]:
    reads_any = _reads_any_column(job)
    for number, (line, row) in enumerate(iter_rows(file, keep_halves=True), 1):
        if half := half_character(row):
            error = f"{place(file, line)} must hold whole characters, got half of one, {half}."
            yield Text(str(row.get(job.id or "id", number)), "", {}, error)
            continue
        if not isinstance(row.get(column), str):
            raise InputError(
                f"{file.name}, {place(file, line)}: the column '{column}' must hold a text, got "
                f"{row.get(column)!r}. Name another with --column."
            )
        key = str(row.get(job.id or "id", row.get("id", number)))
        lacks = reads_any or not needed <= row.keys()
        columns = {**others.of(key), **row} if lacks else row  # the row's own columns win
        missing = sorted(needed - set(columns))
        if missing:
            raise InputError(
                f"{file.name}, {place(file, line)}: the checks need the column '{missing[0]}', and "
                f"neither this row nor an item of the input with its id ({key}) has it. Add it"
                + ("." if job.id else ', or name the id\'s column in the job: id = "…".')
            )
        yield Text(key, row[column], columns)


def _reads_any_column(job: Job) -> bool:
    """Return whether a check reads columns that it does not name: grounding without sources."""
    return any(isinstance(check, Grounded) and not check.sources for check in job.checks)


def _require_no_columns(job: Job, file: Path, needed: set[str]) -> None:
    if needed or _reads_any_column(job):
        names = ", ".join(sorted(needed)) or ", ".join(SOURCES)
        raise InputError(
            f"{file.name} must be JSONL or CSV, as the checks read columns ({names}). "
            "Give each text its id in the input."
        )


def _lines(file: Path) -> Iterator[Text]:
    for number, line in enumerate(iter_lines(file), 1):
        if line.strip():
            yield Text(str(number), line.removesuffix("\n"), {})


def _print(one: Judged, as_json: bool) -> None:
    if as_json:
        verdicts = [verdict.to_json() for verdict in one.verdicts]
        value = {"id": one.id, "passed": one.passed, "verdicts": verdicts}
        value |= {"error": one.error} if one.error else {}
        click.echo(json.dumps(value, ensure_ascii=False))
        return
    click.echo(f"{'✓ passed' if one.passed else '✕ failed'}  {one.id}")
    if one.error:
        click.echo(f"    {one.error}")
    for verdict in one.verdicts:
        if not verdict.passed:
            click.echo(f"    {verdict.check}: {verdict.error or verdict.message}")
