"""`ostinato runs show`: where a run is, why it stopped, what it was started with."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path

import click

from ostinato.cli.options import journal_option, json_option
from ostinato.cli.runs.artifacts import summary
from ostinato.cli.runs.resume_hint import resume_hint
from ostinato.cli.runs.words import ago, cut, opened, size_text
from ostinato.errors import RunError
from ostinato.journal import (
    JSON,
    CheckpointRow,
    Journal,
    Question,
    Run,
    RunConfig,
    RunRow,
    StepRecord,
    chosen_fields,
    config_to_json,
    encode,
    runs_command,
    shortened,
    valid,
)
from ostinato.loop import Attempt, Never, numbers, up_to_date
from ostinato.runs import config_of, folder_of

GENERATOR = "GeneratorProcess"
LAST_STEPS = 5
SHOWN_KEYS = 3  # of results
SHOWN_NUMBERS = 4  # of one name in a step


@click.command()
@click.argument("name")
@json_option
@journal_option("path")
def show(name: str, as_json: bool, path: Path | None) -> None:
    """Show where the run NAME is, and why it stopped.

    Also shows how to resume it, its configuration, its checkpoints and its last steps. Fields of
    the configuration that have their defaults are shown by --json only.
    """
    with opened(path) as journal:
        run = journal.get(name)
        row = run.now()
        saved = run.checkpoints()
        steps = list(run.steps(after=max(0, row.tick - LAST_STEPS)))
        results = run.count_results()
        keys = [key for key, _ in islice(run.results(), SHOWN_KEYS)]
        output = _output(run) if results == 1 else None
        found = run.artifacts()
        until = run.until and up_to_date(run.until)
        parent = _name_of_parent(journal, row)
        caller = _name_of_caller(journal, row)
        called = [child.name for child in run.called()]
        answers = [(each.tick, each.data) for each in run.events() if each.name == "answer"]
        questions, notes = run.questions(), run.notes()
        # A generator has no saved state, so its run is never resumed.
        hint = None if row.kind == GENERATOR else resume_hint(run)
        folder = folder_of(journal.path)
        config = _config(run)
    if as_json:
        shown = {
            **row.to_json(),
            "config": None if config is None else config_to_json(config, folder),
            "until": until,
            "resume_with": hint,
            "results": results,
            "output": output,
            "artifacts": len(found),
            "called": called,
            "questions": [each._asdict() for each in questions],
            "notes": [each.to_json() for each in notes],
            "attempts": [{"tick": tick, **attempt} for tick, attempt in answers],
            "checkpoints": [_checkpoint(each) for each in saved],
            "last_steps": [_step(each) for each in steps],
        }
        click.echo(encode(valid(shown)))
        return
    click.echo(f"{row.name}: {row.kind}, {row.status}, tick {row.tick}, position {row.position}")
    if row.stopped is not None:
        click.echo(f"  {row.stopped.sentence} ({row.stopped.kind.value})")
    for label, value in (
        ("until", until if until != str(Never()) else "it ends by itself, or a person stops it"),
        ("branch of", parent),
        ("called by", caller),
        ("called", ", ".join(called) or None),
        ("started", ago(row.created)),
        ("updated", ago(row.updated)),
        ("results", _results(results, keys)),
        ("output", None if output is None else cut(encode(output))),
        ("artifacts", summary(found)),
        ("notes", str(len(notes)) if notes else None),
        ("kept", _retention(journal, row)),
        ("resume with", hint),
    ):
        if value is not None:
            click.echo(f"  {label:<11} {value}")
    for line in _field_lines({} if config is None else chosen_fields(config, folder)):
        click.echo(line)
    for line in _question_lines(questions, runs_command(journal.path, "answer", row.name)):
        click.echo(line)
    for tick, attempt in answers:
        click.echo(f"  went back   tick {tick}{_attempt(attempt)}")
    for each in saved:
        size = size_text(each.bytes) if each.bytes >= 1e4 else f"{each.bytes} bytes"
        click.echo(f"  checkpoint  tick {each.tick}, {size}, {ago(each.created)}")
    for step in steps:
        line = f"  step {step.tick}  {encode(_outlined(shortened(step.report)))}"
        click.echo(cut(line))


def _field_lines(fields: Mapping[str, JSON]) -> Iterator[str]:
    width = max(map(len, fields), default=0)
    for name, chosen in fields.items():
        value = chosen if isinstance(chosen, str) else encode(chosen)
        yield cut(f"  {name:<{width}}  {value}")


def _question_lines(questions: Sequence[Question], command: str) -> Iterator[str]:
    for asked in questions:
        options = f" ({', '.join(asked.options)})" if asked.options else ""
        yield f"  asks        {asked.path}: {cut(asked.question)}{options}"
    if questions:
        yield f"  answer with {command} …"


def _config(run: Run) -> RunConfig | None:
    """Return the configuration of a run; None, with a warning, where it cannot be read."""
    try:
        return config_of(run)
    except RunError as error:
        click.echo(f"Warning: {error}", err=True)
        return None


def _results(count: int, keys: list[str]) -> str | None:
    """Return how many results there are, and how the first are called."""
    more = ", …" if count > len(keys) else ""
    return f"{count}: {', '.join(keys)}{more}" if count else None


def _output(run: Run) -> str | None:
    """Return the text of a run's first result; None for what is no text."""
    output = next((row.get("output") for _, row in run.results()), None)
    return output if isinstance(output, str) else None


def _retention(journal: Journal, row: RunRow) -> str | None:
    if not row.brief:
        return None
    kept, line = journal.retention, runs_command(journal.path, "keep", row.name)
    return f"until {kept.newest} newer ones have ended, {kept.days:g} days at most; longer: {line}"


def _name_of_parent(journal: Journal, row: RunRow) -> str | None:
    return row.parent and f"{_name(journal, row.parent[0])}, tick {row.parent[1]}"


def _name_of_caller(journal: Journal, row: RunRow) -> str | None:
    return row.caller and f"{_name(journal, row.caller[0])}, at {row.caller[1]}"


def _name(journal: Journal, id: str) -> str:
    run = journal.find(id)
    return id if run is None else run.name


def _checkpoint(row: CheckpointRow) -> dict[str, object]:
    return {
        "tick": row.tick,
        "position": row.position,
        "path": str(row.path),
        "bytes": row.bytes,
        "created": row.created,
    }


def _attempt(saved: Mapping[str, object]) -> str:
    """Return from where a run went back, with what edits, and why."""
    attempt = Attempt.from_json(saved)
    with_edits = f" with {encode(dict(attempt.edits))}" if attempt.edits else ""
    return f", from position {attempt.position}{with_edits}: {attempt.stopped.sentence}"


def _outlined(report: object) -> object:
    """Return a report for one line: of many numbers, such as returns, how many and their mean."""
    if not isinstance(report, dict):
        return report
    return {name: _summed_up(value) for name, value in report.items()}


def _summed_up(value: object) -> object:
    several = numbers(value) if isinstance(value, list) else ()
    if len(several) <= SHOWN_NUMBERS or not any(isinstance(each, float) for each in several):
        return value  # few, or whole numbers such as token ids
    mean = sum(several) / len(several)
    return f"{len(several)} values from {min(several):g} to {max(several):g}, mean {mean:.4g}"


def _step(step: StepRecord) -> dict[str, object]:
    return {"tick": step.tick, "position": step.position, "report": shortened(step.report)}
