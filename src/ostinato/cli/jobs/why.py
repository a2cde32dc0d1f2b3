"""`ostinato why`: explains the outcome of an item of a refine run, or how each check fared."""

from __future__ import annotations

import json
from pathlib import Path

import click

from ostinato.arguments import counted, did_you_mean
from ostinato.cli.options import journal_option, json_option
from ostinato.cli.recording import existing_journal
from ostinato.errors import InputError, RunError
from ostinato.journal import Journal, Note, Run, runs_command
from ostinato.loop import LaneResult
from ostinato.refine import (
    AttemptLine,
    CheckRecord,
    CheckTally,
    Course,
    ReasonTally,
    Result,
    attempt_lines,
    check_names,
    costly,
    from_lane,
    job_place,
)

NAMES = 5  # of a longer list
EXPLAINED = ("refine", "Refine", "sample music")  # kinds of runs whose items have checks and drafts
MARKS = {"passed": "✓", "failed": "✕", "impossible": "✕", "error": "!"}


@click.command()
@click.argument("run")
@click.argument("item", required=False)
@journal_option("path")
@json_option
def why(run: str, item: str | None, path: Path | None, as_json: bool) -> None:
    """Explain the outcome of ITEM in RUN; without ITEM, show how each check fared over the job.

    RUN is a run's name, as `ostinato refine` prints it, or a job file, with or without `.toml`:
    then its newest run that is no branch.
    """
    with existing_journal(path) as journal:
        found = run_of(journal, run)
        require_checked(found, journal)
        if item is None:
            _show_job(found, as_json)
        else:
            _show_item(_result(found, item), found.notes(item), as_json)
        newer = _newer_runs(found)
        if newer:
            click.echo(f"Newer runs of the same job: {_listed(newer)}.", err=True)


def require_checked(run: Run, journal: Journal) -> None:
    """Raise `RunError` for a run whose items have no checks and no drafts."""
    if run.kind not in EXPLAINED:
        raise RunError(
            f"The run must be of a refine job, got {run.name!r}, which is {run.kind}. "
            f"See it with: {runs_command(journal.path, 'show', run.name)}"
        )


def run_of(journal: Journal, name: str) -> Run:
    """Return the run of a name, or the newest run of a job file or of a folder's `job.toml`."""
    # A run may be named like a file, so its name is tried first.
    if (found := journal.find(name)) is not None:
        return found
    file = Path(name)
    if file.suffix == ".toml":
        return _run_of_job(journal, file)
    files = (file.with_name(f"{file.name}.toml"), file / "job.toml")
    there = next((one for one in files if one.is_file()), None)
    return journal.get(name) if there is None else _run_of_job(journal, there)


def _run_of_job(journal: Journal, file: Path) -> Run:
    """Return the newest run of a job file that is no branch; a branch is found by its name.

    Raises `RunError` where there is none.
    """
    for run in journal.runs():  # newest first
        if run.parent is None and _file_of(run) == file.resolve():
            return run
    raise RunError(
        f"There is no run of {file} in {journal.path}. Start one: ostinato refine {file}"
    )


def _newer_runs(run: Run) -> list[str]:
    """Return the names of the newer runs of the same job file, newest first, without branches."""
    file = _file_of(run)
    if file is None or run.parent is not None:
        return []
    return [other.name for other in run.newer() if other.parent is None and _file_of(other) == file]


def _file_of(run: Run) -> Path | None:
    place = job_place(run)
    return None if place is None else place.file.resolve()


def _listed(names: list[str]) -> str:
    return ", ".join(names[:NAMES]) + (", …" if len(names) > NAMES else "")


def _result(run: Run, item: str) -> Result:
    row = run.result(item)
    if row is None:
        keys = run.some_keys()
        example = f", such as {keys[0]!r}" if keys else ""
        raise InputError(
            f"The run '{run.name}' must have a result for the item, got {item!r}."
            f"{did_you_mean(item, keys)} {counted(run.count_results(), 'items')} are done{example}."
        )
    return from_lane(LaneResult.from_json(row))


# One item ---------------------------------------------------------------------------------------


def _show_item(result: Result, notes: list[Note], as_json: bool) -> None:
    lines = attempt_lines(result)
    if as_json:
        value = {
            "id": result.id,
            "outcome": result.outcome,
            "stopped": result.stopped.to_json(),
            "reply": result.reply,
            "tokens": result.tokens.to_json(),
            "attempts": [line.to_json() for line in lines],
            "notes": [note.to_json() for note in notes],
        }
        click.echo(json.dumps(value, ensure_ascii=False))
        return
    click.echo(f"{result.id}: {result.outcome}. {result.stopped.sentence}")
    click.echo(f"  {result.reply or '(no text)'}")
    tokens = result.tokens
    click.echo(
        f"  {counted(tokens.computed, 'tokens')} computed, {tokens.discarded} of them discarded; "
        + (f"{tokens.judged} for judging; " if tokens.judged else "")
        + f"{counted(result.rounds, 'rounds')}, {counted(result.backtracks, 'backtracks')}."
    )
    for note in notes:
        click.echo(f"  {_noted(note)}")
    attempt = None
    for line in lines:
        if (line.round, line.backtracks) != attempt:
            attempt = (line.round, line.backtracks)
            click.echo(
                f"\nround {line.round}" + (f", try {line.backtracks}" if line.backtracks else "")
            )
        _show_line(line)


def _noted(note: Note) -> str:
    edited = ", ".join(f"{name} = {value}" for name, value in (note.value or {}).items())
    parts = (f"{note.verdict} by {note.author}", edited, note.text)
    return ": ".join(part for part in parts if part)


def _show_line(line: AttemptLine) -> None:
    text = f"  {MARKS.get(line.verdict, ' ')} {line.verdict:<10} {line.check}"
    if line.place:
        text += f"  at “{line.place}”"
    if line.times > 1:
        text += f"  ({counted(line.times, 'times')})"
    if line.tokens:
        text += f"  ({counted(line.tokens, 'tokens')})"
    click.echo(text)
    if line.message:
        click.echo(f"      {line.message}")


# A whole job ------------------------------------------------------------------------------------


def _show_job(run: Run, as_json: bool) -> None:
    count, checks, reasons = 0, CheckTally(names_of_checks(run)), ReasonTally()
    for _, row in run.results():
        result = from_lane(LaneResult.from_json(row))
        count += 1
        checks.add(result)
        reasons.add(result)
    refused = [reason for reason in reasons.reasons() if reason.outcome != "accepted"]
    records = checks.records
    costly_names = {record.name for record in costly(records)}
    if as_json:
        told = [{**record.to_json(), "costly": record.name in costly_names} for record in records]
        why = [reason.to_json() for reason in refused]
        value = {"run": run.name, "items": count, "refused": why, "checks": told}
        click.echo(json.dumps(value, ensure_ascii=False))
        return
    click.echo(f"{run.name}: {counted(count, 'items')} done.")
    for reason in refused:
        click.echo(f"  {reason.count} {reason.outcome}: {reason.cause}")
    for record in records:
        _show_record(record, record.name in costly_names)


def names_of_checks(run: Run) -> list[str]:
    """Return the names of the run's checks; older runs recorded them only in their results."""
    names = check_names(run)
    if names:
        return names
    results = (from_lane(LaneResult.from_json(row)) for _, row in run.results())
    return list(dict.fromkeys(v.check for result in results for v in result.verdicts))


def _show_record(record: CheckRecord, is_costly: bool) -> None:
    labels = [label for label in (record.label, "costly" if is_costly else "") if label]
    if is_costly and record.label == "fine":
        labels = ["costly"]
    courses = ", ".join(
        f"{record.count(course)} {course.value}" for course in Course if record.count(course)
    )
    click.echo(f"  {record.name}: {', '.join(labels)}")
    click.echo(f"      {courses or 'no items'}; {record.tokens:,.0f} tokens taken back")
    if record.often:
        click.echo(f"      most often: {record.often}")
    never = record.items(Course.NEVER)
    if never:
        click.echo(f"      never passed on: {_listed(never)}")
    if record.errors:
        click.echo(f"      could not judge {counted(record.errors, 'times')}")
