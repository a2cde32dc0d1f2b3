"""`ostinato runs`: list, show, pause, stop, branch, resume and delete the runs of a journal."""

from __future__ import annotations

import re
import sys
from dataclasses import replace
from pathlib import Path

import click

from ostinato.arguments import counted
from ostinato.cli.following import View, view_options
from ostinato.cli.options import journal_option, json_option
from ostinato.cli.run_loop import Exit
from ostinato.cli.runs.artifacts import artifacts
from ostinato.cli.runs.headline import headline
from ostinato.cli.runs.pairs import pairs
from ostinato.cli.runs.people import answer, export, keep, note
from ostinato.cli.runs.plot import plot
from ostinato.cli.runs.resume_hint import resume_hint
from ostinato.cli.runs.show import show as show_run
from ostinato.cli.runs.words import listed, opened, setting, size_text
from ostinato.errors import InputError, RunError
from ostinato.journal import (
    DEFAULT,
    Run,
    encode,
    runs_command,
    valid,
)
from ostinato.runs import branch as branch_run

STATUSES = ("new", "running", "waiting", "paused", "interrupted", "stopped", "error")


@click.group(invoke_without_command=True)
@journal_option("path")
@click.option("--kind", help="Only runs of this kind, such as: train text; or train for all.")
@click.option("--status", type=click.Choice(STATUSES), help="Only runs with this status.")
@click.option("--name", metavar="PATTERN", help="Only runs whose name fits; * and ? stand for any.")
@click.option("--limit", type=click.IntRange(min=1), help="At most this many, the newest.")
@json_option
@click.pass_context
def runs(
    ctx: click.Context,
    path: Path | None,
    kind: str | None,
    status: str | None,
    name: str | None,
    limit: int | None,
    as_json: bool,
) -> None:
    """List the runs of a journal, newest first, or act on one of them.

    Branches are listed under the run that they come from, and called runs under their caller.
    """
    ctx.obj = path
    if ctx.invoked_subcommand is not None:
        return
    if path is None and not DEFAULT.exists():
        rows = []  # a new folder has no runs, which is no error; nor does listing create a journal
        told = {}
    else:
        with opened(path) as journal:
            rows = journal.summaries(kind=kind, status=status, name=name)[:limit]
            told = {each.row.id: headline(journal.get(each.row.name), each) for each in rows}
    if as_json:
        values = [{**each.to_json(), "headline": told[each.row.id].to_json()} for each in rows]
        click.echo(encode(valid({"runs": values})))
        return
    for line in listed(rows, {id: each.words for id, each in told.items()}):
        click.echo(line)
    if not rows:
        which = " like that" if kind or status or name else " yet"
        click.echo(f"No runs{which} in {path or DEFAULT}.")


# Requests to the process that drives a run, and deletion ----------------------------------------


@runs.command()
@click.argument("name")
@journal_option("path")
def pause(name: str, path: Path | None) -> None:
    """Pause the running NAME; it can be resumed.

    The run saves a checkpoint and ends at its next step. While it waits for a run that it called,
    that one is paused.
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
        working = _working(run)
        if working is None or action == "pause":
            run = working or run
        else:
            raise RunError(
                f"To {action} a run, it must be driven itself, got {run.name!r}, which waits for "
                f"{working.name!r}. Pause it, or stop that one: "
                f"{runs_command(journal.path, action, working.name)}"
            )
        journal.request(run, action)
        click.echo(f"{run.name} will {action} at its next step.")


def _working(run: Run) -> Run | None:
    """Return the run that a run waits for: it is driven in place of its caller."""
    if run.driven:
        return None
    for child in run.called():
        found = child if child.driven else _working(child)
        if found is not None:
            return found
    return None


@runs.command()
@click.argument("name")
@click.option("--yes", is_flag=True, help="Delete without confirmation.")
@journal_option("path")
def delete(name: str, yes: bool, path: Path | None) -> None:
    """Delete the run NAME, its checkpoints, and the runs that it called."""
    with opened(path) as journal:
        run = journal.get(name)
        row = run.now()
        if not yes and not run.driven:  # `Journal.delete` refuses a driven run: no need to confirm
            results, called = run.count_results(), len(run.called())
            found = counted(results, "results")
            what = f"{row.name} ({row.kind}, {row.status}, tick {row.tick}, {found})"
            also = f", its checkpoints and the {counted(called, 'runs')} that it called"
            more = also if called else " and its checkpoints"
            if not click.confirm(f"Delete the run {what}{more}?"):
                click.echo("Nothing was deleted.")
                return
        others = journal.delete(run.id) - 1
    also = f" and {counted(others, 'runs')} that it called" if others else ""
    click.echo(f"Deleted {row.name}{also}.")


_UNITS = {"min": 60.0, "h": 3600.0, "d": 86400.0, "w": 7 * 86400.0}


class Age(click.ParamType[float]):
    """A time such as `30d`, in seconds."""

    name = "age"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Return the seconds of a text."""
        match = re.fullmatch(r"(\d+(?:\.\d+)?)(min|h|d|w)", str(value))
        if match is None:
            self.fail(f"It must be a number with min, h, d or w, such as 30d, got {value!r}.")
        return float(match[1]) * _UNITS[match[2]]


@runs.command()
@click.option(
    "--older-than", type=Age(), help="Only runs without a change for this long: 12h, 30d, 4w."
)
@click.option("--keep", type=click.IntRange(min=0), help="Keep this many of them, the newest.")
@click.option("--kind", help="Only runs of this kind, such as: train text; or train for all.")
@click.option(
    "--status", type=click.Choice(STATUSES), help="Only these.  [default: stopped and error]"
)
@click.option("--dry-run", is_flag=True, help="Only show what would be deleted.")
@click.option("--yes", is_flag=True, help="Delete without confirmation.")
@journal_option("path")
def prune(
    older_than: float | None,
    keep: int | None,
    kind: str | None,
    status: str | None,
    dry_run: bool,
    yes: bool,
    path: Path | None,
) -> None:
    """Delete old runs with their checkpoints.

    Runs that can be resumed stay unless --status names them. So does a run with a branch that
    stays. Runs that were called go and stay with their callers.
    """
    if older_than is None and keep is None:
        raise InputError("prune must have --older-than or --keep, got none. Give --keep 0 for all.")
    with opened(path) as journal:
        old = journal.prunable(older_than=older_than, keep=keep, kind=kind, status=status)
        for line in listed(old):
            click.echo(line)
        count = f"{counted(len(old), 'runs')} ({size_text(sum(e.bytes for e in old))})"
        if dry_run or not old:
            click.echo(f"{count} would be deleted." if old else "No run is to be deleted.")
            return
        if not yes and not click.confirm(f"Delete {count}?"):
            click.echo("Nothing was deleted.")
            return
        for each in old:
            if journal.find(each.row.id) is not None:  # it may have gone with its caller
                journal.delete(each.row.id)
        try:
            journal.compact()
        except RunError:  # others use the journal: the room is used for later runs
            click.echo(f"Deleted {count}; the journal's file keeps its size for later runs.")
            return
    click.echo(f"Deleted {count}.")


# Branch and resume ------------------------------------------------------------------------------


@runs.command()
@click.argument("name")
@click.option("--at", "tick", type=int, help="Tick of the checkpoint.  [default: the last]")
@click.option("--call", metavar="PATH", help="Start just after this call of a flow.")
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
    name: str,
    tick: int | None,
    call: str | None,
    new: str,
    settings: tuple[str, ...],
    path: Path | None,
) -> None:
    """Create a run from a checkpoint of the run NAME, or just after one of its calls."""
    edits = dict(setting(text) for text in settings)
    with opened(path) as journal:
        made = branch_run(journal, journal.get(name), new, tick=tick, edits=edits, call=call)
        row, hint = made.now(), resume_hint(made)
    changed = f" with {encode(edits)}" if edits else ""
    where = f"at tick {row.tick}" if call is None else f"after the call {call}"
    click.echo(f"Created {row.name} from {name} {where}{changed}.")
    click.echo(f"Resume it with: {hint}")


@runs.command()
@click.argument("name")
@click.option("--until", "until", metavar="CONDITION", help="Stop condition, such as: Steps(1000)")
@click.option(
    "--trust",
    is_flag=True,
    help="Run the Python code that the run names, and use files outside of the journal's folder.",
)
@click.option("--show", is_flag=True, help="Show its steps, if runs of its kind can.")
@view_options
@journal_option("path")
def resume(
    name: str, until: str | None, trust: bool, show: bool, view: View, path: Path | None
) -> None:
    """Resume the paused, interrupted or killed run NAME.

    The run is built from its recorded configuration, and ends as the command that started it does:
    with the same output and exit codes. A run that its own conditions have stopped needs others:
    --until "Steps(2000)".

    \b
    --trust is needed where the run
      calls a function that its journal names, also from the working folder;
      is of a job whose checks are Python functions;
      reads or writes files outside of the journal's folder.

    Exit codes: 0 it ended on its own or on request; 2 an argument or a file is wrong; 130
    interrupted (Ctrl-C or SIGTERM).
    """
    from ostinato.cli.runs.resume import resume_run
    from ostinato.loop import sigterm_interrupts

    with opened(path) as journal, sigterm_interrupts():
        run = journal.get(name)
        try:
            code = resume_run(run, until, replace(view, show=show), trust=trust)
        except KeyboardInterrupt:
            click.echo(f"Interrupted. To resume: {resume_hint(run)}", err=True)
            code = Exit.INTERRUPTED
    sys.exit(code)


for command in (answer, artifacts, export, keep, note, pairs, plot, show_run):
    runs.add_command(command)
