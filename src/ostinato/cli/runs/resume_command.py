"""Goes on with a run by the command that began it; says how one that has stopped is extended."""

from __future__ import annotations

from ostinato.cli.exit_codes import Exit
from ostinato.cli.jobs.job_runs import in_place_of
from ostinato.cli.runs.recorded_command import RecordedCommand, begun_of
from ostinato.cli.runs.resume_hint import own_command, way_on
from ostinato.errors import InputError, RunError
from ostinato.journal import Run, RunRow, StopKind
from ostinato.loop import parse


def go_on_by_command(run: Run, until: str | None, *, trust: bool, as_json: bool) -> Exit:
    """Run the command of a run again, in its folder. Ends with that command's own exit code.

    Raises `RunError` where no command began it, where it has stopped and cannot simply go on, and
    without `trust`: it reads and writes the files that the journal names.
    """
    row, command = run.now(), own_command(run)
    if command is None:
        raise RunError(_only_from_python(run, row))
    if until is not None:
        _require_training(row)
        parse(until)
    if row.status == "stopped" and until is None and not (trust and _is_out_of_budget(row)):
        raise RunError(f"{_why(row)}{_extended(row)} The command that began it: {command}")
    begun = _runnable(run, row, command)
    begun = begun if until is None else begun.until(until)
    if not trust:
        raise RunError(
            f"The run {row.name!r} goes on by the command that began it, which reads and writes "
            "the files that the journal names. Where you trust it, add --trust, or give it "
            f"yourself: {begun}"
        )
    if as_json and row.kind == "train":
        raise InputError("--json must be left out for a training, which prints lines, got it.")
    (begun.having("--json") if as_json else begun).call()
    return Exit.DONE


def _require_training(row: RunRow) -> None:
    if row.kind != "train":
        raise InputError(
            f"--until must be given for a training or a run with a factory, {row.name!r} is of "
            f"another kind: {_extended(row)}"
        )


def _is_out_of_budget(row: RunRow) -> bool:
    """Tell whether a job's budget ended the run: raised in the job, it goes on."""
    return "job" in row.spec and row.stopped is not None and row.stopped.kind is StopKind.BUDGET


def _only_from_python(run: Run, row: RunRow) -> str:
    return (
        f"{_why(row)}The run {row.name!r} can be resumed only from Python: it does not tell how "
        f"its process is made. Go on with {way_on(run).removeprefix('Python: ')}, or name a "
        "function that makes it when a run begins: "
        'Loop(..., spec={"factory": "package.module:function"}).'
    )


def _runnable(run: Run, row: RunRow, command: str) -> RecordedCommand:
    """Return the command of a run. Raises `RunError` where it was not recorded whole."""
    newer = in_place_of(run)
    if newer is not None:
        raise RunError(
            f"The run {row.name!r} must be the newest of its job to go on, got one before "
            f"{newer!r}. Go on with that: ostinato runs resume {newer}"
        )
    begun = begun_of(run)
    if begun is None:
        raise RunError(
            f"The run {row.name!r} goes on by the command that began it, with the same options: "
            f"{command}"
        )
    return begun


# What has stopped -------------------------------------------------------------------------------


def _why(row: RunRow) -> str:
    """Say why a run has stopped; nothing of one that has not."""
    if row.stopped is None or row.status != "stopped":
        return ""
    return f"The run {row.name!r} has stopped at tick {row.tick}: {row.stopped.sentence} "


def _extended(row: RunRow) -> str:
    """Say how a run of this kind is extended."""
    if row.kind == "train":
        return (
            "To go on it must be given another condition: a higher --epochs or --steps for the "
            f"command that began it, or ostinato runs resume {row.name} --trust "
            f'--until "Steps({max(2 * row.tick, 1)})".'
        )
    if _is_out_of_budget(row):
        return f"Raise it in [budget] of {row.spec['job']}, and give the same command again."
    if "job" in row.spec:
        return "Changed items are written again by its command with --update, all with --fresh."
    return "The same command shows what came of it; for more, begin a run of another name."
