"""How a run is resumed: the command for its owner to type, and running that command again."""

from __future__ import annotations

import shlex

from ostinato.cli.jobs.job_runs import newer_run_of_command
from ostinato.cli.recording import resume_line
from ostinato.cli.run_loop import Exit
from ostinato.cli.runs.recorded_command import RecordedCommand, command_of
from ostinato.errors import InputError, RunError
from ostinato.journal import Run, RunRow, StopKind, runs_command
from ostinato.loop import parse
from ostinato.runs import CONFIG, KINDS

# What to type -----------------------------------------------------------------------------------


def resume_hint(run: Run) -> str:
    """Return the command line that resumes a run, or the line of Python."""
    row = run.now()
    condition = ' --until "…"' if row.status == "stopped" else ""
    if row.kind in KINDS and CONFIG in row.spec:
        return resume_line(run) + (condition if row.kind.startswith("train") else "")
    if "factory" in row.spec:
        return runs_command(run.database.path, "resume", row.name, "--trust") + condition
    command = command_line(run)
    if command is None:
        return f"Python: Loop(process, until=..., run={row.name!r})"
    if row.kind == "train":
        return command + condition
    newer = newer_run_of_command(run)
    return command if newer is None else f"{command} (resumes the newer run {newer})"


def command_line(run: Run) -> str | None:
    """Return the command that started a run and resumes it; None where no command did."""
    command = command_of(run)
    return _from_spec(run.now()) if command is None else str(command)


def _from_spec(row: RunRow) -> str | None:
    """Return what the spec shows of a command that older versions did not record."""
    spec = row.spec
    if row.kind == "refine" and "job" in spec:
        words = ["ostinato", "refine", str(spec["job"])]
        words += ["--output", str(spec["output"])] if "output" in spec else []
        words += ["--limit", str(spec["limit"])] if spec.get("limit") else []
        return shlex.join(words)
    if "sample" in spec:
        return f"ostinato sample {spec['sample']} … --run {row.name}"
    for name in ("generate", "fill"):
        if name in spec:
            return f"ostinato {name} … --run {row.name}"
    if row.kind == "train" and "out" in spec and row.parent is None:
        return f"ostinato train {spec.get('task', 'text')} … --out {spec['out']}"
    return None


# Resuming by the command ------------------------------------------------------------------------


def resume_by_command(run: Run, until: str | None, *, trust: bool, as_json: bool) -> Exit:
    """Run the command of a run again, in its folder. Ends with that command's own exit code.

    Raises `RunError` for a run that no command started, for one that has stopped and needs another
    condition, and without `trust`: the command reads and writes the files that the journal names.
    """
    row, line = run.now(), command_line(run)
    if line is None:
        raise RunError(_only_from_python(run, row))
    if until is not None:
        _require_training(row)
        parse(until)
    # A job that ran out of budget needs no condition: its budget may have been raised since.
    if row.status == "stopped" and until is None and not (trust and _is_out_of_budget(row)):
        raise RunError(f"{_why(row)}{_how_to_extend(row)} The command that started it: {line}")
    command = _runnable(run, row, line)
    command = command if until is None else command.until(until)
    if not trust:
        raise RunError(
            f"Resuming the run {row.name!r} runs the command that started it, which reads and "
            "writes the files that the journal names. If you trust it, add --trust, or type it: "
            f"{command}"
        )
    if as_json and row.kind == "train":
        raise InputError("--json must be left out for a training, which prints lines, got it.")
    (command.having("--json") if as_json else command).call()
    return Exit.DONE


def _require_training(row: RunRow) -> None:
    if row.kind != "train":
        raise InputError(
            f"--until must be given for a training or a run with a factory, got {row.name!r} of "
            f"kind {row.kind}. {_how_to_extend(row)}"
        )


def _is_out_of_budget(row: RunRow) -> bool:
    return "job" in row.spec and row.stopped is not None and row.stopped.kind is StopKind.BUDGET


def _only_from_python(run: Run, row: RunRow) -> str:
    return (
        f"{_why(row)}The run {row.name!r} can be resumed only from Python: it does not record how "
        f"its process is made. Call {resume_hint(run).removeprefix('Python: ')}, or name a "
        "function that makes the process when a run starts: "
        'Loop(..., spec={"factory": "package.module:function"}).'
    )


def _runnable(run: Run, row: RunRow, line: str) -> RecordedCommand:
    """Return the recorded command. Raises `RunError` where it would resume another run, or none."""
    newer = newer_run_of_command(run)
    if newer is not None:
        raise RunError(
            f"The run {row.name!r} must be the newest of its job to be resumed, got one before "
            f"{newer!r}. Resume that one: ostinato runs resume {newer}"
        )
    command = command_of(run)
    if command is None:
        raise RunError(
            f"The run {row.name!r} is resumed by the command that started it, with the same "
            f"options: {line}"
        )
    return command


# What has stopped -------------------------------------------------------------------------------


def _why(row: RunRow) -> str:
    """Say why a run has stopped; return nothing for one that has not."""
    if row.stopped is None or row.status != "stopped":
        return ""
    return f"The run {row.name!r} has stopped at tick {row.tick}: {row.stopped.sentence} "


def _how_to_extend(row: RunRow) -> str:
    if row.kind == "train":
        return (
            "To resume it, give another condition: a higher --epochs or --steps to the command "
            f"that started it, or ostinato runs resume {row.name} --trust "
            f'--until "Steps({max(2 * row.tick, 1)})".'
        )
    if _is_out_of_budget(row):
        return f"Raise [budget] in {row.spec['job']}, and run the same command again."
    if "job" in row.spec:
        return "Its command writes changed items again with --update, and all items with --fresh."
    return "The same command shows its output; for more, start a run of another name."
