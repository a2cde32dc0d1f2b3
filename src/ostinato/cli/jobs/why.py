"""`ostinato why`: why an item of a refine run came out as it did, or its checks over the job."""

from __future__ import annotations

import json
from pathlib import Path

import click

from ostinato.arguments import did_you_mean
from ostinato.cli.jobs.job_runs import newer_runs, run_of_job
from ostinato.errors import InputError, RunError
from ostinato.journal import Journal, Run
from ostinato.refine import (
    AttemptLine,
    CheckRecord,
    Course,
    Reason,
    Result,
    attempt_lines,
    costly,
    from_lane,
    reasons,
    tally,
)

MARKS = {"passed": "✓", "failed": "✕", "impossible": "✕", "error": "!"}


@click.command()
@click.argument("run")
@click.argument("item", required=False)
@click.option(
    "--journal",
    "path",
    type=click.Path(path_type=Path),
    help="The journal's file. [default: .ostinato/journal.db]",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def why(run: str, item: str | None, path: Path | None, as_json: bool) -> None:
    """Tell why ITEM of RUN came out as it did; without ITEM, how each check fared over the job.

    RUN is a run's name, as `ostinato refine` prints it, or a job file: then its newest run that is
    no branch.
    """
    with Journal() if path is None else Journal(path) as journal:
        found = _run(journal, run)
        if found.kind != "refine":
            raise RunError(
                f"The run must be of a refine job, got {run!r}, which is {found.kind}. What became "
                f"of it tells: ostinato runs show {found.name}"
            )
        if item is None:
            _tell_job(found, as_json)
        else:
            _tell_item(_result(found, item), as_json)
        newer = newer_runs(found)
        if newer:
            told = ", ".join(newer[:5]) + (", …" if len(newer) > 5 else "")
            click.echo(f"Newer runs of the same job: {told}.", err=True)


def _run(journal: Journal, named: str) -> Run:
    """Return the run of a name, or the newest own one of a job file."""
    file = Path(named)
    if journal.find(named) is None and file.suffix == ".toml":
        return run_of_job(journal, file)
    return journal.get(named)


def _result(run: Run, item: str) -> Result:
    row = run.result(item)
    if row is None:
        keys = [key for key, _ in run.results()]
        raise InputError(
            f"The run '{run.name}' must have a result for the item, got {item!r}."
            f"{did_you_mean(item, keys)} {len(keys)} items are done."
        )
    return from_lane(item, row)


# One item ---------------------------------------------------------------------------------------


def _tell_item(result: Result, as_json: bool) -> None:
    lines = attempt_lines(result)
    if as_json:
        value = {
            "id": result.id,
            "outcome": result.outcome,
            "stopped": result.stopped.to_json(),
            "reply": result.reply,
            "tokens": result.tokens.to_json(),
            "attempts": [line.to_json() for line in lines],
        }
        click.echo(json.dumps(value, ensure_ascii=False))
        return
    click.echo(f"{result.id}: {result.outcome}. {result.stopped.sentence}")
    click.echo(f"  {result.reply or '(no text)'}")
    tokens = result.tokens
    click.echo(
        f"  {tokens.computed} tokens computed, {tokens.discarded} of them discarded; "
        + (f"{tokens.judged} taken to judge; " if tokens.judged else "")
        + f"{result.rounds} round{'s' * (result.rounds != 1)}, {result.backtracks} times gone back."
    )
    place = None
    for line in lines:
        if (line.round, line.backtracks) != place:
            place = (line.round, line.backtracks)
            click.echo(
                f"\nround {line.round}" + (f", try {line.backtracks}" if line.backtracks else "")
            )
        _tell_line(line)


def _tell_line(line: AttemptLine) -> None:
    told = f"  {MARKS.get(line.verdict, ' ')} {line.verdict:<10} {line.check}"
    if line.place:
        told += f"  at “{line.place}”"
    if line.tokens:
        told += f"  ({line.tokens} tokens)"
    click.echo(told)
    if line.message:
        click.echo(f"      {line.message}")


# A whole job ------------------------------------------------------------------------------------


def _tell_job(run: Run, as_json: bool) -> None:
    results = [from_lane(key, row) for key, row in run.results()]
    names = _check_names(run, results)
    records = tally(names, results)
    dear = {record.name for record in costly(records)}
    if as_json:
        checks = [{**record.to_json(), "costly": record.name in dear} for record in records]
        refused = [reason.to_json() for reason in _refused(results)]
        value = {"run": run.name, "items": len(results), "refused": refused, "checks": checks}
        click.echo(json.dumps(value, ensure_ascii=False))
        return
    click.echo(f"{run.name}: {len(results)} items done.")
    for reason in _refused(results):
        click.echo(f"  {reason.count} {reason.outcome}: {reason.words}")
    for record in records:
        _tell_record(record, record.name in dear)


def _refused(results: list[Result]) -> list[Reason]:
    """Return why items were not accepted, the most frequent reason first."""
    return [reason for reason in reasons(results) if reason.outcome != "accepted"]


def _check_names(run: Run, results: list[Result]) -> list[str]:
    """Return the checks' names: as the run was started with, else as they come in the results."""
    names = run.spec.get("checks")
    if isinstance(names, list):
        return [str(name) for name in names]
    return list(dict.fromkeys(v.check for result in results for v in result.verdicts))


def _tell_record(record: CheckRecord, dear: bool) -> None:
    labels = [label for label in (record.label, "costly" if dear else "") if label]
    if dear and record.label == "fine":
        labels = ["costly"]
    told = ", ".join(
        f"{record.count(course)} {course.value}" for course in Course if record.count(course)
    )
    click.echo(f"  {record.name}: {', '.join(labels)}")
    click.echo(f"      {told or 'no items'}; {record.tokens:,.0f} tokens taken back")
    if record.often:
        click.echo(f"      most often: {record.often}")
    never = record.items(Course.NEVER)
    if never:
        click.echo(
            f"      never passed on: {', '.join(never[:5])}{', …' if len(never) > 5 else ''}"
        )
    if record.errors:
        click.echo(f"      could not judge {record.errors} times")
