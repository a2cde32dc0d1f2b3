"""A job's run, built from its record: what `ostinato.runs.build` and the command drive."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from ostinato.errors import RunError
from ostinato.journal import Journal, Run, RunSource
from ostinato.loop import Work
from ostinato.refine.job.job_run import JobRun
from ostinato.refine.job.open_job import open_job
from ostinato.refine.job.run_config import JobRunConfig, job_place
from ostinato.refine.report.html import Outcome


@dataclass(kw_only=True)
class JobWork(Work):
    """A job whose model is loaded. `outcome` is what `finish` has written."""

    job_run: JobRun
    exports: tuple[Path, ...] = ()
    outcome: Outcome | None = None

    def write(self) -> None:
        """Write the output, the report and the exports; items that are not done are left out."""
        self.outcome = self.job_run.write(self.loop.stopped)
        if not self.outcome.kept:
            self.job_run.export(self.exports)


def build_job(
    config: JobRunConfig,
    *,
    run: RunSource | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> JobWork:
    """Build the run of a job: read its file, check everything, load the model.

    `say` gets lines about a big model and a long input. Raises `InputError` where the job has
    changed.
    """
    job_run = reopen_job(config, run, say=say)
    return JobWork(loop=job_run.loop(say=say), job_run=job_run, exports=config.exports)


def reopen_job(
    config: JobRunConfig,
    run: RunSource | None,
    *,
    say: Callable[[str], None] = lambda line: None,
    to_read: bool = False,
) -> JobRun:
    """Read the job of a run again. Loads no model. Raises `InputError` where it has changed.

    `to_read`: nothing is resumed, and its output may be that of a newer run.
    """
    if run is None:
        raise RunError(
            "A job must be recorded as a run, got none: its replies are written from the journal. "
            "Record it with ostinato.runs.record, or call ostinato.refine.open_job."
        )
    made = run() if callable(run) else run
    if not to_read:
        _require_newest(made, config)
    with Journal(made.database.path) as journal:
        opened = open_job(config.job(), journal, limit=config.limit, name=made.name, say=say)
    return replace(opened, run=made)  # that journal is closed


def _require_newest(run: Run, config: JobRunConfig) -> None:
    """Raise `RunError` for a run whose output a newer run of the job writes."""
    for other in run.newer() if run.parent is None else ():
        place = job_place(other)
        if place is None or other.parent is not None or place.file != config.file:
            continue
        if place.output.resolve() == config.output.resolve():
            raise RunError(
                f"The run {run.name!r} must be the newest of its output {config.output.name} to "
                f"be resumed, got one before {other.name!r}. Resume that one: ostinato runs resume "
                f"{other.name}"
            )
