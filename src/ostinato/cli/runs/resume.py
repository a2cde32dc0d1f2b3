"""Resumes a run: by the function that makes its process, or by the command that started it."""

from __future__ import annotations

import importlib
import json
import re
import sys
from typing import Any, Literal

import click

from ostinato.cli.following import View, display_for, followed
from ostinato.cli.presenters import presenter
from ostinato.cli.recording import asks_trust, resume_line
from ostinato.cli.run_loop import Exit
from ostinato.cli.runs.resume_hint import not_built, resume_hint
from ostinato.errors import InputError, RunError
from ostinato.journal import Run, RunConfig, RunRow, runs_command
from ostinato.loop import (
    CheckpointSchedule,
    Condition,
    Loop,
    Never,
    OnStop,
    as_condition,
    ends_by_signal,
    parse,
    up_to_date,
)
from ostinato.refine import StepTally
from ostinato.runs import changed_config, config_of

# A dotted name and nothing else: a journal may come from someone else.
FACTORY = re.compile(r"\w+(\.\w+)*:\w+")


def resume_run(run: Run, until: str | None, view: View, *, trust: bool) -> Exit:
    """Drive a run to its end or interruption, and say why it ended.

    Raises `RunError` where the command line cannot make the process, where the run has stopped and
    `until` is None, and without `trust`: the journal's factory is then neither imported nor called.
    """
    row, config = run.now(), config_of(run)
    if config is not None:
        return _resume_built(run, config, until, view, trust=trust)
    if "factory" not in row.spec:
        raise not_built(run)
    other = None if until is None else parse(until)
    if row.status == "stopped" and other is None:
        raise RunError(_needs_until(run))
    if not trust:
        raise RunError(_needs_trust(run))
    process, condition, on_stop = _call_factory(row)
    loop = Loop(
        process,
        until=other or _last_condition(run, condition),
        on_stop=on_stop,
        run=run,
        checkpoint=_schedule(row),
        keep=_keep(row),
    )
    if loop.stopped is not None:
        # The new condition already holds, such as Steps(6) at tick 6.
        loop.close()
        raise RunError(_needs_until(run))
    return _drive(run, loop, view)


def _resume_built(
    run: Run, config: RunConfig, until: str | None, view: View, *, trust: bool
) -> Exit:
    """Build a run from its configuration and drive it on.

    Raises `RunError` where that does what its owner must be trusted for, without `trust`.
    """
    doing = asks_trust(config, run.database.path)
    if doing and not trust:
        raise RunError(
            f"Resuming the run {run.name!r}, as its journal says, {doing}. If you trust it, run: "
            f"{resume_line(run)}"
        )
    if until is not None:
        config = _until(config, until)
    return presenter(config.kind)(config, run, view)


def _until(config: RunConfig, until: str) -> RunConfig:
    """Return a configuration with another end. Raises `InputError` for a kind without one."""
    if "until" not in config.free:
        raise InputError(
            f"--until must be left out for a run of the kind {config.kind}, got {until!r}. "
            f"{config.longer}"
        )
    parse(until)
    return changed_config(config, {"until": until})


def _drive(run: Run, loop: Loop, view: View) -> Exit:
    began = loop.tick
    end = "" if loop.until == Never() else f", until {loop.until}"
    view.say(f"Resuming {run.name} at tick {began}{end}.", err=False)
    display = display_for(StepTally(loop), view)
    with ends_by_signal(loop) as signaled, followed(loop, view, display):
        stopped = loop.run(display.step)
    row = run.now()
    if view.as_json:
        click.echo(json.dumps({**row.to_json(), "began": began, "why": stopped.to_json()}))
    else:
        click.echo(f"{stopped.sentence} ({stopped.kind.value}, tick {row.tick})")
        if row.status != "stopped":  # paused, or waiting for an answer
            click.echo(f"To resume: {resume_hint(run)}")
    # A pause by `runs pause` is no interruption of this command.
    return Exit.INTERRUPTED if signaled.number and row.status != "stopped" else Exit.DONE


def _needs_until(run: Run) -> str:
    row = run.now()
    why = row.stopped.sentence if row.stopped is not None else ""
    return (
        f"The run {row.name!r} has stopped at tick {row.tick}: {why} To resume it, give another "
        f"condition, such as: {runs_command(run.database.path, 'resume', row.name, '--trust')} "
        f'--until "Steps({max(2 * row.tick, 1)})"'
    )


def _needs_trust(run: Run) -> str:
    row = run.now()
    return (
        f"Resuming the run {row.name!r} imports and calls the function {row.spec['factory']!r}, "
        "which its journal names, also from this folder. If you trust both, run: "
        f"{runs_command(run.database.path, 'resume', row.name, '--trust')}"
    )


# What the spec holds ----------------------------------------------------------------------------


def _call_factory(row: RunRow) -> tuple[object, object, OnStop]:
    """Call the run's factory; return process, condition and on_stop."""
    factory, args = row.spec["factory"], row.spec.get("args") or {}
    if not isinstance(factory, str) or not FACTORY.fullmatch(factory):
        raise RunError(
            f"The factory of the run {row.name!r} must be 'package.module:function', got "
            f"{factory!r}. Resume it from Python."
        )
    if not isinstance(args, dict | list):
        raise RunError(
            f"The args of the run {row.name!r} must be a mapping or a list, got {args!r}. "
            "Resume it from Python."
        )
    make = _import_factory(row, factory)
    made = make(**args) if isinstance(args, dict) else make(*args)
    if not isinstance(made, tuple) or len(made) != 3 or not callable(made[2]):
        raise RunError(
            f"The factory {factory} must return (process, until, on_stop), got {made!r}. "
            "To accept every stop, return ostinato.loop.accept as on_stop; until may be None."
        )
    return made


def _import_factory(row: RunRow, factory: str) -> Any:
    module, _, name = factory.partition(":")
    if "" not in sys.path:
        sys.path.insert(0, "")  # the working folder, as `python -m` does; console scripts do not
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise RunError(
            f"The factory {factory} of the run {row.name!r} cannot be imported: {error}. "
            "Run the command in the folder of that module, or install its package; or resume the "
            "run from Python."
        ) from error


def _last_condition(run: Run, made: object) -> Condition:
    """Return the condition that was last in force: the factory's, unless another came later."""
    own = Never() if made is None else as_condition(made)
    later = run.later_until and up_to_date(run.later_until)
    if later is None or later == str(own):
        return own
    try:
        return parse(later)
    except InputError as error:
        raise RunError(
            f"The run {run.name!r} was last driven until {later}, which can be made only in "
            f"Python. {error} Give --until, or resume it from Python."
        ) from None


def _schedule(row: RunRow) -> CheckpointSchedule | None:
    value = row.spec.get("checkpoint")
    if not isinstance(value, dict):
        return None
    steps, keep = value.get("steps"), value.get("keep", 3)
    if not isinstance(steps, int) or not isinstance(keep, int):
        raise RunError(f"checkpoint in the run's spec must hold steps and keep, got {value!r}.")
    return CheckpointSchedule(steps=steps, keep=keep)


def _keep(row: RunRow) -> Literal["steps", "results"]:
    return "results" if row.spec.get("keep") == "results" else "steps"
