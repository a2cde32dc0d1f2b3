"""`ostinato runs`: list, show, pause, stop, branch, resume and delete the runs of a journal."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from ostinato.cli.options import journal_option, json_option
from ostinato.cli.run_loop import Exit
from ostinato.cli.runs.resume_command import resume_hint
from ostinato.errors import InputError, RunError
from ostinato.journal import DEFAULT, CheckpointRow, Journal, RunRow, StepRecord, encode, valid

LAST_STEPS = 5
WIDTH = 100
UNLIMITED = f"Steps({1 << 62})"  # of loops that only the end of their items stops


@click.group(invoke_without_command=True)
@journal_option("path")
@json_option
@click.pass_context
def runs(ctx: click.Context, path: Path | None, as_json: bool) -> None:
    """List the runs of a journal, newest first, or act on one of them."""
    ctx.obj = path
    if ctx.invoked_subcommand is not None:
        return
    if path is None and not DEFAULT.exists():
        rows = []  # a new folder has no runs, which is no error; nor does listing create a journal
    else:
        with opened(path) as journal:
            rows = [run.now() for run in journal.runs()]
    if as_json:
        click.echo(encode(valid({"runs": [row.to_json() for row in rows]})))
        return
    for row in rows:
        click.echo(f"{row.name}  {row.kind}  {row.status}  tick {row.tick}  {ago(row.updated)}")
        if row.stopped is not None:
            click.echo(f"  {row.stopped.sentence}")
    if not rows:
        click.echo(f"No runs yet in {path or DEFAULT}.")


@contextmanager
def opened(path: Path | None) -> Iterator[Journal]:
    """Open the journal of the command's or the group's `--journal`, or the default one.

    Raises `RunError` where the file does not exist: reading must not create it.
    """
    context = click.get_current_context(silent=True)
    path = path or (context.obj if context is not None else None) or DEFAULT
    if not os.path.exists(path):  # unlike Path.exists, it raises for no name
        raise RunError(f"There is no journal {path}. Name the journal's file with --journal.")
    with Journal(path) as journal:
        yield journal


def ago(moment: float) -> str:
    """Return the time since a moment (seconds since 1970) in words: `3 min ago`."""
    seconds = max(0.0, time.time() - moment)
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit} ago"
    return f"{seconds:.0f} s ago"


# Show -------------------------------------------------------------------------------------------


@runs.command()
@click.argument("name")
@json_option
@journal_option("path")
def show(name: str, as_json: bool, path: Path | None) -> None:
    """Show where the run NAME is, and why it stopped.

    Also shows its checkpoints, its last steps, and how to resume it.
    """
    with opened(path) as journal:
        run = journal.get(name)
        row = run.now()
        saved = run.checkpoints()
        steps = list(run.steps(after=max(0, row.tick - LAST_STEPS)))
        results = run.count_results()
        until = run.until
        parent = _name_of_parent(journal, row)
        hint = resume_hint(run)
    if as_json:
        shown = {
            **row.to_json(),
            "until": until,
            "resume_with": hint,
            "results": results,
            "checkpoints": [_checkpoint(each) for each in saved],
            "last_steps": [_step(each) for each in steps],
        }
        click.echo(encode(valid(shown)))
        return
    click.echo(f"{row.name}: {row.kind}, {row.status}, tick {row.tick}, position {row.position}")
    if row.stopped is not None:
        click.echo(f"  {row.stopped.sentence} ({row.stopped.kind.value})")
    for label, value in (
        ("until", "all items are done" if until == UNLIMITED else until),
        ("branch of", parent),
        ("started", ago(row.created)),
        ("updated", ago(row.updated)),
        ("results", str(results) if results else None),
        ("resume with", hint),
    ):
        if value is not None:
            click.echo(f"  {label:<11} {value}")
    for each in saved:
        size = f"{each.bytes / 1e6:.1f} MB" if each.bytes >= 1e5 else f"{each.bytes} bytes"
        click.echo(f"  checkpoint  tick {each.tick}, {size}, {ago(each.created)}")
    for step in steps:
        line = f"  step {step.tick}  {encode(step.report)}"
        click.echo(line if len(line) <= WIDTH else line[: WIDTH - 1] + "…")


def _name_of_parent(journal: Journal, row: RunRow) -> str | None:
    if row.parent is None:
        return None
    id, tick = row.parent
    run = journal.find(id)
    return f"{id if run is None else run.name}, tick {tick}"


def _checkpoint(row: CheckpointRow) -> dict[str, object]:
    return {
        "tick": row.tick,
        "position": row.position,
        "path": str(row.path),
        "bytes": row.bytes,
        "created": row.created,
    }


def _step(step: StepRecord) -> dict[str, object]:
    return {"tick": step.tick, "position": step.position, "report": step.report}


# Requests to the process that drives a run, and deletion ----------------------------------------


@runs.command()
@click.argument("name")
@journal_option("path")
def pause(name: str, path: Path | None) -> None:
    """Pause the running NAME; it can be resumed.

    The run saves a checkpoint and ends at its next step.
    """
    _request(name, path, "pause")


@runs.command()
@click.argument("name")
@journal_option("path")
def stop(name: str, path: Path | None) -> None:
    """Stop the running NAME for good, at its next step."""
    _request(name, path, "stop")


def _request(name: str, path: Path | None, action: str) -> None:
    with opened(path) as journal:
        run = journal.get(name)
        journal.request(run, action)
        click.echo(f"{run.name} will {action} at its next step.")


@runs.command()
@click.argument("name")
@click.option("--yes", is_flag=True, help="Delete without confirmation.")
@journal_option("path")
def delete(name: str, yes: bool, path: Path | None) -> None:
    """Delete the run NAME and its checkpoints."""
    with opened(path) as journal:
        run = journal.get(name)
        row = run.now()
        if not yes and not run.driven:  # `Journal.delete` refuses a driven run: no need to confirm
            results = run.count_results()
            what = f"{row.name} ({row.kind}, {row.status}, tick {row.tick}, {results} results)"
            if not click.confirm(f"Delete the run {what} and its checkpoints?"):
                click.echo("Nothing was deleted.")
                return
        journal.delete(run.id)
        click.echo(f"Deleted {row.name}.")


# Branch and resume ------------------------------------------------------------------------------


@runs.command()
@click.argument("name")
@click.option("--at", "tick", type=int, help="Tick of the checkpoint.  [default: the last]")
@click.option("--as", "new", required=True, metavar="NEW", help="Name of the new run.")
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="NAME=VALUE",
    help="Change a setting from there on; the value is JSON, else text; repeatable.",
)
@journal_option("path")
def branch(
    name: str, tick: int | None, new: str, settings: tuple[str, ...], path: Path | None
) -> None:
    """Create a run from a checkpoint of the run NAME."""
    edits = dict(_setting(text) for text in settings)
    with opened(path) as journal:
        made = journal.branch(journal.get(name), new, tick=tick, edits=edits)
        row, hint = made.now(), resume_hint(made)
    changed = f" with {encode(edits)}" if edits else ""
    click.echo(f"Created {row.name} from {name} at tick {row.tick}{changed}.")
    click.echo(f"Resume it with: {hint}")


def _setting(text: str) -> tuple[str, object]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise InputError(f"--set must be NAME=VALUE, got {text!r}. Write for example rate=0.5.")
    try:
        return name, json.loads(value, parse_constant=_no_number)
    except (ValueError, RecursionError):
        return name, value  # color=red needs no quotes within quotes


def _no_number(word: str) -> float:
    """Refuse NaN and Infinity, which Python reads but JSON does not know: they stay text."""
    raise ValueError(word)


@runs.command()
@click.argument("name")
@click.option("--until", "until", metavar="CONDITION", help="Stop condition, such as: Steps(1000)")
@click.option(
    "--trust", is_flag=True, help="Run the command or call the function that the journal names."
)
@json_option
@journal_option("path")
def resume(name: str, until: str | None, trust: bool, as_json: bool, path: Path | None) -> None:
    """Resume the paused, interrupted or killed run NAME.

    A run that its own conditions have stopped needs others: --until "Steps(2000)". Resuming runs
    the command that started the run, with its own exit codes. Or it calls a function that the
    journal names, also from the working folder. Give --trust if you trust the journal and the
    folder. Exit codes: 0 it ended on its own or on request; 2 an argument or a file is wrong; 130
    interrupted (Ctrl-C or SIGTERM).
    """
    from ostinato.cli.runs.resume import resume_run

    with opened(path) as journal:
        try:
            code = resume_run(journal.get(name), until, trust=trust, as_json=as_json)
        except KeyboardInterrupt:
            click.echo(f"Interrupted. To resume: ostinato runs resume {name} --trust", err=True)
            code = Exit.INTERRUPTED
    sys.exit(code)
