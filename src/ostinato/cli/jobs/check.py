"""`ostinato check`: judge existing texts by a job's checks."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import click

from ostinato.checks import SOURCES, Grounded, judge_all
from ostinato.cli.run_loop import Exit
from ostinato.errors import InputError
from ostinato.loop import Verdict
from ostinato.refine import STANDARD_INPUT, Job, prepare, read_job
from ostinato.row_files import place, read_rows, row_format
from ostinato.text_files import half_character, read_text


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
    # All rows are read before a model of a check is loaded, so that a bad row costs no time.
    texts = list(_texts(job, file, column))
    prepare(job.checks)
    judged = [_judged(job, text) for text in texts]
    if not judged:
        raise InputError(f"{file.name} must hold at least one text, got none.")
    for one in judged:
        _print(one, as_json)
    passed = sum(one.passed for one in judged)
    if not as_json:
        click.echo(f"{passed} of {len(judged)} passed every check.")
    sys.exit(Exit.DONE if passed == len(judged) else Exit.NOT_ALL)


def _judged(job: Job, text: Text) -> Judged:
    if text.error:
        return Judged(text.id, (), text.error)
    return Judged(text.id, judge_all(job.checks, text.text, text.columns))


def _texts(job: Job, file: Path, column: str) -> Iterator[Text]:
    needed = {c for check in job.checks for c in check.columns}
    if row_format(file) is None:
        yield from _lines(job, file, needed)
        return
    rows = read_rows(file, keep_halves=True)
    others: dict[str, Mapping[str, object]] = {}
    lacking = _reads_any_column(job) or any(needed - set(row) for _, row in rows)
    if lacking and job.input != STANDARD_INPUT:
        others = {item.key: item.columns for item in job.items()}
    for number, (line, row) in enumerate(rows, 1):
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
        columns = {**others.get(key, {}), **row}  # the row's own columns win
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


def _lines(job: Job, file: Path, needed: set[str]) -> Iterator[Text]:
    if needed or _reads_any_column(job):
        names = ", ".join(sorted(needed)) or ", ".join(SOURCES)
        raise InputError(
            f"{file.name} must be JSONL or CSV, as the checks read columns ({names}). "
            "Give each text its id in the input."
        )
    # Not `splitlines`: a text may contain U+2028 or U+0085, which would split it.
    for number, line in enumerate(read_text(file).split("\n"), 1):
        if line.strip():
            yield Text(str(number), line, {})


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
