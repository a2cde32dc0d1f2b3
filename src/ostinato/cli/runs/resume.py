"""Goes on with a run: calls the function that makes its process, or the command that began it."""

from __future__ import annotations

import importlib
import json
import re
import sys
from typing import Any, Literal

import click

from ostinato.cli.exit_codes import Exit
from ostinato.cli.runs.resume_command import go_on_by_command
from ostinato.cli.runs.resume_hint import way_on
from ostinato.cli.signals import ends_by_signal
from ostinato.errors import InputError, RunError
from ostinato.journal import Run, RunRow
from ostinato.loop import CheckpointSchedule, Condition, Loop, OnStop, as_condition, parse

FACTORY = re.compile(r"\w+(\.\w+)*:\w+")


def go_on(run: Run, until: str | None, *, trust: bool, as_json: bool) -> Exit:
    """Run a run to its end or interruption, and tell why it ended.

    Raises `RunError` where the command line cannot make its process, where it has stopped and
    `until` is None, and without `trust`: the function that the journal names is then not called.
    """
    row = run.now()
    if "factory" not in row.spec:
        return go_on_by_command(run, until, trust=trust, as_json=as_json)
    given = None if until is None else parse(until)
    if row.status == "stopped" and given is None:
        raise RunError(_wants_until(row))
    if not trust:
        raise RunError(_wants_trust(row))
    process, condition, on_stop = _made_again(row)
    condition = given or _last_condition(run, condition)
    loop = Loop(
        process,
        until=condition,
        on_stop=on_stop,
        run=run,
        checkpoint=_every(row),
        keep=_keep(row),
    )
    if loop.stopped is not None:
        loop.close()
        raise RunError(_wants_until(row))
    return _drive(run, loop, as_json=as_json)


def _drive(run: Run, loop: Loop, *, as_json: bool) -> Exit:
    name, began = run.name, loop.tick
    click.echo(f"{name} goes on at tick {began}, until {loop.until}.", err=as_json)
    with ends_by_signal(loop) as asked:
        stopped = loop.run()
    row = run.now()
    if as_json:
        click.echo(json.dumps({**row.to_json(), "began": began, "why": stopped.to_json()}))
    else:
        click.echo(f"{stopped.sentence} ({stopped.kind.value}, tick {row.tick})")
    if row.status == "paused" and not as_json:
        click.echo(f"To go on: {way_on(run)}")
    return Exit.INTERRUPTED if asked.by_signal and row.status == "paused" else Exit.DONE


def _wants_until(row: RunRow) -> str:
    why = row.stopped.sentence if row.stopped is not None else ""
    return (
        f"The run {row.name!r} has stopped at tick {row.tick}: {why} To go on it must be given "
        f"another condition, such as: ostinato runs resume {row.name} --trust "
        f'--until "Steps({max(2 * row.tick, 1)})"'
    )


def _wants_trust(row: RunRow) -> str:
    return (
        f"The process of the run {row.name!r} is made by the function {row.spec['factory']!r}, "
        "which its journal names, and which would be imported, from this folder too, and called. "
        f"Where you trust both, go on by: ostinato runs resume {row.name} --trust"
    )


# What the spec says -----------------------------------------------------------------------------


def _made_again(row: RunRow) -> tuple[object, object, OnStop]:
    """Call the run's factory; return process, condition and on_stop."""
    factory, args = row.spec["factory"], row.spec.get("args") or {}
    if not isinstance(factory, str) or not FACTORY.fullmatch(factory):
        raise RunError(
            f"The factory of the run {row.name!r} must be 'package.module:function', got "
            f"{factory!r}. Go on from Python."
        )
    if not isinstance(args, dict | list):
        raise RunError(
            f"The args of the run {row.name!r} must be a mapping or a list, got {args!r}. "
            "Go on from Python."
        )
    make = _imported(row, factory)
    made = make(**args) if isinstance(args, dict) else make(*args)
    if not isinstance(made, tuple) or len(made) != 3 or not callable(made[2]):
        raise RunError(
            f"The factory {factory} must return (process, until, on_stop), got {made!r}. "
            "Where every stop stands, on_stop is ostinato.loop.accept."
        )
    return made


def _imported(row: RunRow, factory: str) -> Any:
    module, _, name = factory.partition(":")
    if "" not in sys.path:
        sys.path.insert(0, "")  # the working folder, as with `python -m`
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise RunError(
            f"The factory {factory} of the run {row.name!r} cannot be imported: {error}. "
            "Call the command in the folder of that module, or install its package; or go on "
            "from Python."
        ) from error


def _last_condition(run: Run, made: object) -> Condition:
    """Return the condition that the run had last: the factory's, unless it was given another."""
    own, later = as_condition(made), run.later_until
    if later is None or later == str(own):
        return own
    try:
        return parse(later)
    except InputError as error:
        raise RunError(
            f"The run {run.name!r} was last driven until {later}, which can be made only from "
            f"Python. {error} Give --until, or go on from Python."
        ) from None


def _every(row: RunRow) -> CheckpointSchedule | None:
    value = row.spec.get("checkpoint")
    if not isinstance(value, dict):
        return None
    steps, keep = value.get("steps"), value.get("keep", 3)
    if not isinstance(steps, int) or not isinstance(keep, int):
        raise RunError(f"checkpoint in the run's spec must hold steps and keep, got {value!r}.")
    return CheckpointSchedule(steps=steps, keep=keep)


def _keep(row: RunRow) -> Literal["steps", "results"]:
    return "results" if row.spec.get("keep") == "results" else "steps"
