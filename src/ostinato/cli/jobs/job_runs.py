"""The runs of one refine job: another for each `--limit`, each `--update` and each `--fresh`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ostinato.errors import RunError
from ostinato.journal import Journal, Run

IDENTITY = ("job", "output", "limit")
"""What `ostinato refine` finds a run by: it goes on with the newest that has the same."""


def run_of_job(journal: Journal, file: Path) -> Run:
    """Return the newest run of a job file, branches excepted, which have names to go by.

    Raises `RunError` where there is none.
    """
    job = str(file.absolute())
    for run in journal.runs():
        if run.kind == "refine" and run.spec.get("job") == job and run.parent is None:
            return run
    raise RunError(
        f"There is no run of {file} in {journal.path}. Begin one: ostinato refine {file}"
    )


def newer_runs(run: Run) -> list[str]:
    """Return the names of the newer runs of the same job file, the newest first."""
    return [other.name for other in _newer(run) if other.spec["job"] == run.spec["job"]]


def in_place_of(run: Run) -> str | None:
    """Return the name of the run that the command of a run goes on with; None: with this one."""
    spec = run.spec
    for other in _newer(run):
        if all(other.spec.get(key) == spec.get(key) for key in IDENTITY):
            return other.name
    return None


def _newer(run: Run) -> Iterator[Run]:
    """Yield the refine runs that are newer than one of a job, branches excepted."""
    if run.kind != "refine" or "job" not in run.spec or run.parent is not None:
        return
    for other in run.newer():
        if other.kind == "refine" and "job" in other.spec and other.parent is None:
            yield other
