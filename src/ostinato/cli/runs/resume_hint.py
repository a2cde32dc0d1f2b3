"""How a run is resumed, in words: the line to type, or why it must be resumed otherwise."""

from __future__ import annotations

import re
import shlex
from typing import Any

from ostinato.cli.recording import resume_line
from ostinato.errors import RunError
from ostinato.journal import Run, RunRow, runs_command
from ostinato.loop import Never
from ostinato.runs import config_of

BEGUN = "begun"
"""The entry of a run's spec in which older versions recorded the command that started it."""

COMMAND = re.compile(r"[a-z]+( [a-z-]+)?")


def resume_hint(run: Run) -> str:
    """Return the command line that resumes a run, or the line of Python."""
    row = run.now()
    condition = ' --until "…"' if row.status == "stopped" else ""
    if "factory" in row.spec:
        return runs_command(run.database.path, "resume", row.name, "--trust") + condition
    try:
        config = config_of(run)
    except RunError:  # the command says what is wrong with the record
        return runs_command(run.database.path, "resume", row.name)
    if config is None:
        return older_command(row) or f"Python: {call_of_loop(run)}"
    if call := config.resumed_by(row.name):
        return f"Python: {call}"
    return resume_line(run) + (condition if "until" in config.free else "")


def call_of_loop(run: Run) -> str:
    """Return the line of Python that builds a run's loop again."""
    until = "" if run.until == str(Never()) else "until=..., "
    return f"Loop(process, {until}run={run.name!r})"


def older_command(row: RunRow) -> str | None:
    """Return the command that started a run of an older version; None for any other run.

    A journal may come from somebody else: the line is for its reader to judge, and never run.
    """
    recorded: Any = row.spec.get(BEGUN)
    if not isinstance(recorded, dict) or not COMMAND.fullmatch(str(recorded.get("command"))):
        return _from_spec(row)
    arguments, options = (recorded.get(name) for name in ("arguments", "options"))
    words = [str(each) for each in arguments] if isinstance(arguments, list) else []
    for option in options if isinstance(options, list) else []:
        words += map(str, option) if isinstance(option, list) else []
    return f"ostinato {recorded['command']} {shlex.join(words)}"


def _from_spec(row: RunRow) -> str | None:
    """Return what the spec shows of a command that still older versions did not record."""
    spec: Any = row.spec
    if row.kind == "refine" and "job" in spec:
        words = [str(spec["job"]), *(["--output", str(spec["output"])] if "output" in spec else [])]
        words += ["--limit", str(spec["limit"])] if spec.get("limit") else []
        return f"ostinato refine {shlex.join(words)}"
    if row.kind == "train" and "out" in spec:
        return f"ostinato train … --out {shlex.quote(str(spec['out']))}"
    return None


def not_built(run: Run) -> RunError:
    """Return the error for a run that cannot be built from its record."""
    row = run.now()
    why = f"It has stopped at tick {row.tick}: {row.stopped.sentence} " if row.stopped else ""
    command = older_command(row)
    if command is not None:
        return RunError(
            f"The run {row.name!r} was recorded by an older version, and cannot be built from its "
            f"record. {why}Type the command that started it: {command}"
        )
    return RunError(
        f"{why}The run {row.name!r} can be resumed only from Python: it does not record how its "
        f"process is made. Call {resume_hint(run).removeprefix('Python: ')}, or name a function "
        'that makes the process when a run starts: Loop(..., spec={"factory": '
        '"package.module:function"}).'
    )
