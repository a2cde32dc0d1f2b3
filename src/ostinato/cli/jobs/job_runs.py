"""The runs of one refine job: another for each `--limit`, each `--update` and each `--fresh`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ostinato.errors import RunError
from ostinato.journal import Journal, Run

IDENTITY = ("job", "output", "limit")
"""The entries of a spec by which `ostinato refine` finds the run to resume: the newest match."""


def run_of_job(journal: Journal, file: Path) -> Run:
    """Return the newest run of a job file that is no branch; a branch is found by its name.

    Raises `RunError` where there is none.
    """
    job = str(file.absolute())
    for run in journal.runs():  # newest first
        if run.kind == "refine" and run.spec.get("job") == job and run.parent is None:
            return run
    raise RunError(
        f"There is no run of {file} in {journal.path}. Start one: ostinato refine {file}"
    )


def newer_runs(run: Run) -> list[str]:
    """Return the names of the newer runs of the same job file, newest first."""
    return [other.name for other in _newer(run) if other.spec["job"] == run.spec["job"]]


def newer_run_of_command(run: Run) -> str | None:
    """Return the name of the newer run that a run's command would resume; None where there is none.

    After `--fresh` or `--update` the command resumes the run that these made.
    """
    spec = run.spec
    for other in _newer(run):
        if all(other.spec.get(key) == spec.get(key) for key in IDENTITY):
            return other.name
    return None


def _newer(run: Run) -> Iterator[Run]:
    """Yield the newer runs of jobs, without branches; none for a run that is not of a job."""
    if run.kind != "refine" or "job" not in run.spec or run.parent is not None:
        return
    for other in run.newer():
        if other.kind == "refine" and "job" in other.spec and other.parent is None:
            yield other
