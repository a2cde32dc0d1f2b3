"""`ostinato runs`: list, show, pause, stop, branch, resume and delete the runs of a journal."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from ostinato.cli.exit_codes import Exit
from ostinato.cli.runs.resume_hint import way_on
from ostinato.errors import InputError, RunError
from ostinato.journal import DEFAULT, CheckpointRow, Journal, RunRow, StepRecord, encode, valid

LAST_STEPS = 5
WIDTH = 100


def journal_option(command: Any) -> Any:
    """Add `--journal` to a command."""
    return click.option(
        "--journal",
        "path",
        type=click.Path(path_type=Path),
        help="The journal's file. [default: .ostinato/journal.db]",
    )(command)


@click.group(invoke_without_command=True)
@journal_option
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of lines.")
@click.pass_context
def runs(ctx: click.Context, path: Path | None, as_json: bool) -> None:
    """List the runs of a journal, newest first; or do something with one of them."""
    ctx.obj = path
    if ctx.invoked_subcommand is not None:
        return
    if path is None and not DEFAULT.exists():
        rows = []
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
    """Open a journal that exists: one given to the command or to the group, else the default."""
    context = click.get_current_context(silent=True)
    path = path or (context.obj if context is not None else None) or DEFAULT
    if not path.exists():
        raise RunError(f"There is no journal {path}. Name the journal's file with --journal.")
    with Journal(path) as journal:
        yield journal


def ago(moment: float) -> str:
    """Say how long ago something was: `3 min ago`."""
    seconds = max(0.0, time.time() - moment)
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit} ago"
    return f"{seconds:.0f} s ago"


# Show -------------------------------------------------------------------------------------------


@runs.command()
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of lines.")
@journal_option
def show(name: str, as_json: bool, path: Path | None) -> None:
    """Show the run NAME: where it is, why it stopped, its checkpoints, its last steps."""
    with opened(path) as journal:
        run = journal.get(name)
        row = run.now()
        saved = run.checkpoints()
        steps = list(run.steps(after=max(0, row.tick - LAST_STEPS)))
        results = run.count_results()
        until = run.until
        parent = _name_of_parent(journal, row)
        way = way_on(run)
    if as_json:
        value = {
            **row.to_json(),
            "until": until,
            "goes_on_by": way,
            "results": results,
            "checkpoints": [_checkpoint(each) for each in saved],
            "last_steps": [_step(each) for each in steps],
        }
        click.echo(encode(valid(value)))
        return
    click.echo(f"{row.name}: {row.kind}, {row.status}, tick {row.tick}, position {row.position}")
    if row.stopped is not None:
        click.echo(f"  {row.stopped.sentence} ({row.stopped.kind.value})")
    for what, told in (
        ("until", until),
        ("branch of", parent),
        ("begun", ago(row.created)),
        ("written", ago(row.updated)),
        ("results", str(results) if results else None),
        ("goes on by", way),
    ):
        if told is not None:
            click.echo(f"  {what:<11} {told}")
    for each in saved:
        size = f"{each.bytes / 1e6:.1f} MB" if each.bytes >= 1e5 else f"{each.bytes} bytes"
        click.echo(f"  checkpoint  tick {each.tick}, {size}, {ago(each.created)}")
    for step in steps:
        told = f"  step {step.tick}  {encode(step.report)}"
        click.echo(told if len(told) <= WIDTH else told[: WIDTH - 1] + "…")


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


# A request to the driver, and the end of a run --------------------------------------------------


@runs.command()
@click.argument("name")
@journal_option
def pause(name: str, path: Path | None) -> None:
    """Ask the running NAME to end at its next step, with a checkpoint; it can go on later."""
    _ask(name, path, "pause")


@runs.command()
@click.argument("name")
@journal_option
def stop(name: str, path: Path | None) -> None:
    """Ask the running NAME to end at its next step, for good."""
    _ask(name, path, "stop")


def _ask(name: str, path: Path | None, action: str) -> None:
    with opened(path) as journal:
        run = journal.get(name)
        journal.request(run, action)
        click.echo(f"Asked {run.name} to {action}: it ends at its next step.")


@runs.command()
@click.argument("name")
@click.option("--yes", is_flag=True, help="Do not ask.")
@journal_option
def delete(name: str, yes: bool, path: Path | None) -> None:
    """Delete the run NAME: its steps, events, results and checkpoints."""
    with opened(path) as journal:
        run = journal.get(name)
        row = run.now()
        if not yes and not run.driven:  # a run that is driven is refused without being asked for
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
@click.option("--at", "tick", type=int, help="The checkpoint's tick. [default: the last]")
@click.option("--as", "new", required=True, metavar="NEW", help="The name of the new run.")
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="NAME=VALUE",
    help="Change this from there on; JSON, else text (may be given again).",
)
@journal_option
def branch(
    name: str, tick: int | None, new: str, settings: tuple[str, ...], path: Path | None
) -> None:
    """Make a new run that goes on from a checkpoint of the run NAME."""
    edits = dict(_setting(text) for text in settings)
    with opened(path) as journal:
        made = journal.branch(journal.get(name), new, tick=tick, edits=edits)
        row, way = made.now(), way_on(made)
    changed = f" with {encode(edits)}" if edits else ""
    click.echo(f"Made {row.name}: {name} from tick {row.tick} on{changed}.")
    click.echo(f"It goes on by: {way}")


def _setting(text: str) -> tuple[str, object]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise InputError(f"--set must be NAME=VALUE, got {text!r}. Write for example rate=0.5.")
    try:
        return name, json.loads(value, parse_constant=_no_number)
    except ValueError:
        return name, value


def _no_number(word: str) -> float:
    raise ValueError(word)


@runs.command()
@click.argument("name")
@click.option("--until", "until", metavar="CONDITION", help="End by this, such as: Steps(1000)")
@click.option(
    "--trust", is_flag=True, help="Run the command or the function that the journal names for it."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object at the end.")
@journal_option
def resume(name: str, until: str | None, trust: bool, as_json: bool, path: Path | None) -> None:
    """Go on with the run NAME where it was: paused, interrupted or killed.

    A run that has stopped by its own conditions wants others: --until "Steps(2000)". The command
    that began it is run again, with its own exit codes; or a function is called that the journal
    names, from the working folder too. Give --trust where you trust the journal and the folder.
    Exit codes: 0 it ended by itself or was asked to from outside; 2 something given is wrong; 130
    interrupted (Ctrl-C or SIGTERM).
    """
    from ostinato.cli.runs.resume import go_on

    with opened(path) as journal:
        try:
            code = go_on(journal.get(name), until, trust=trust, as_json=as_json)
        except KeyboardInterrupt:
            click.echo(f"Interrupted. To go on: ostinato runs resume {name} --trust", err=True)
            code = Exit.INTERRUPTED
    sys.exit(code)
