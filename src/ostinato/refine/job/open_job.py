"""Finds the run of a job in the journal, or makes one that takes over what earlier runs have done.

Knows hashes, runs and results; loads no model.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Literal

from ostinato.errors import InputError, RunError, RunLocked
from ostinato.journal import (
    JSON,
    Journal,
    Run,
    config_to_json,
    safe_name,
)
from ostinato.refine.job.changes import Fingerprint, JobChanges
from ostinato.refine.job.config import Job
from ostinato.refine.job.earlier_runs import (
    EarlierRuns,
    index_of_run,
    is_of,
    items_folder,
    runs_of,
    writes,
)
from ostinato.refine.job.item_index import forget_indexes
from ostinato.refine.job.job_items import read_job_items
from ostinato.refine.job.job_run import JobRun, has_all, job_budget
from ostinato.refine.job.only import Only, only_spec, require_base, works_on
from ostinato.refine.job.output_claim import OutputClaim
from ostinato.refine.job.preflight import require_ready
from ostinato.refine.job.reused import CARRIED, JUDGING_ANEW, TAKING_OVER, ReusedResults
from ostinato.refine.job.run_config import (
    JOB_KIND,
    JobRunConfig,
)
from ostinato.runs import CONFIG, amend, config_of, folder_of

OpenMode = Literal["resume", "fresh", "update"]

UNUSED_SECONDS = 24 * 3600.0
"""How long an index of items is kept that no run uses."""


def open_job(
    job: Job,
    journal: Journal,
    *,
    limit: int | None = None,
    mode: OpenMode = "resume",
    name: str | None = None,
    only: Only | None = None,
    exports: Sequence[Path] = (),
    say: Callable[[str], None] = lambda line: None,
) -> JobRun:
    """Find the job's run, or create one. Loads no model.

    The run is the newest one of the same job file and output that equals the job as it is now; with
    `name`, the run of that name, for example a branch. A new run takes over the results of earlier
    runs that would come out the same. `mode`: "resume" refuses to write an item again whose reply
    an earlier run has; "update" writes again what the changes affect: where only checks have
    changed, accepted replies are judged by these, and stay where they pass; "fresh" writes
    everything again. With `only`, a new run works again on items of the newest one of the output
    that were not accepted, and takes over its other results, whatever seed, strategy and model they
    come from; an unfinished run of that kind is resumed. `exports` are recorded with a new run.
    `say` gets lines about the progress of a long input.

    Raises `OstinatoError` for what the job needs and this machine lacks, `InputError` for bad
    input, for a changed job in mode "resume", and for an output of
    another job, of a branch's parent, or with more replies than this run has items; `RunLocked`
    while another process writes the same output.
    """
    require_ready(job)
    folder = items_folder(journal)
    router = job.router()
    everything = read_job_items(job, router, folder, say=say)
    items = everything.first(limit)
    output_claim = OutputClaim(job.output, journal.path.parent)
    # Before a run is created: an output of another job must leave no trace in the journal.
    output_claim.claim(job.file)
    config = JobRunConfig.of(job, limit, exports)
    now = Fingerprint(items=items.index)
    earlier = EarlierRuns(journal, job, config, now)
    _refuse_two_writers(journal, job)
    if name is not None:
        _complete(journal, name, now)
    _delete_untouched(journal, job, earlier)
    reused = ReusedResults(items, job.checks)
    if only is not None:
        run = earlier.newest()
    else:
        run = earlier.nearest(limit) if name is None else named_run(journal, job, name)
    changes = JobChanges() if run is None else earlier.changes(run)
    opened = partial(JobRun, job=job, items=items, router=router, output_claim=output_claim)
    make = partial(_new_run, journal, job, config, now)
    if only is not None:
        base = require_base(job, run, changes.settings)
        reused.complete(journal, base, earlier)
        if works_on(base) == only and not changes and not has_all(base, items.index):
            return opened(run=base)
        reused.keep(base, earlier.before(base).items, only)
        if reused.count == len(items):
            return opened(run=base)
        _refuse_smaller_output(job, len(items), whole=items.whole)
        run = make({**only_spec(only, base), TAKING_OVER: True}, None)
        reused.carry_over(journal, run)
        _forget_indexes(journal, folder)
        return opened(run=run, reused=reused.count)
    if run is not None and mode != "fresh" and (not changes or earlier.covers(run)):
        reused.complete(journal, run, earlier)
        _adopt(journal, run, config, named=name is not None)
        return opened(run=run)
    if mode != "fresh":
        reused.find(earlier, anew=mode == "update")
    if run is not None and mode == "resume" and (changes.lossy or name is not None):
        again = len(items) - reused.count
        judging = earlier.changed_checks(run) is not None
        sentences = changes.sentences(again, judging=judging)
        raise InputError(_changed_message(job, run, sentences, named=name is not None))
    _refuse_smaller_output(job, len(items), whole=items.whole)
    run = make(_taking_over(reused), name)
    if reused.count:
        reused.carry_over(journal, run)
    _forget_indexes(journal, folder)
    return opened(run=run, reused=reused.count)


def _taking_over(reused: ReusedResults) -> dict[str, JSON]:
    """Return what a run records until it has the results that it takes over."""
    judging: dict[str, JSON] = {JUDGING_ANEW: True} if reused.to_judge else {}
    return {TAKING_OVER: True, **judging} if reused.count else {}


def _forget_indexes(journal: Journal, folder: Path) -> None:
    used = [index_of_run(run).get("file") for run in journal.runs()]
    forget_indexes(folder, map(str, used), time.time() - UNUSED_SECONDS)


# Finding ----------------------------------------------------------------------------------------


def named_run(journal: Journal, job: Job, name: str) -> Run | None:
    """Return the run of a name, None if there is none.

    Raises `InputError` for a run of another job, and for a branch whose output would be its
    parent's.
    """
    run = journal.find(name)
    if run is None:
        return None
    row = run.now()
    if not is_of(run, job):
        raise InputError(
            f"--run must name a run of {job.file.name}, got {name!r}, which is another job's. Name "
            "one that `ostinato runs` lists for this job, or a new one."
        )
    parent = journal.find(row.parent[0]) if row.parent is not None else None
    if parent is not None and writes(parent, job):
        raise InputError(
            f"The output of the branch {row.name!r} must differ from its parent's, got "
            f"{job.output}, which is that of {parent.name!r}. Name another with --output."
        )
    return run


# What must not happen ---------------------------------------------------------------------------


def _refuse_two_writers(journal: Journal, job: Job) -> None:
    """Raise `RunLocked` while a run of the same output is driven: the last one would win."""
    for run in runs_of(journal, job):
        if writes(run, job) and (pid := run.driver_pid) is not None:
            raise RunLocked(
                f"The output {job.output.name} is written by the run {run.name!r}, which the "
                f"process {pid} drives. Wait until it ends, or name another with --output."
            )


def _delete_untouched(journal: Journal, job: Job, earlier: EarlierRuns) -> None:
    """Delete the runs of other versions of the job that have done nothing.

    A wrong job can so be fixed without --fresh.
    """
    for run in list(runs_of(journal, job)):
        if writes(run, job) and _untouched(run) and earlier.changes(run):
            journal.delete(run.name)


def _untouched(run: Run) -> bool:
    """Return whether a run has done nothing, for example as its model could not be loaded."""
    return run.tick == 0 and all(row.get(CARRIED) for _, row in run.results())


def _refuse_smaller_output(job: Job, count: int, *, whole: bool) -> None:
    """Refuse to write part of the input over an output with more replies, before any work."""
    held = OutputClaim.replies(job.output)
    if not whole and held > count:
        raise InputError(
            f"The output must not lose replies: {job.output.name} has {held}, and this run would "
            f"leave {count}. Name another file with --output, or delete that one first."
        )


def _changed_message(job: Job, run: Run, sentences: Sequence[str], *, named: bool) -> str:
    lines = "\n".join(f"  - {sentence}" for sentence in sentences)
    fix = (
        f"Undo the changes, or start another run with ostinato refine {job.file.name}: --update "
        "for what changed, --fresh for everything, --run for a run of another name."
        if named
        else "Write only what changed with --update, or everything with --fresh. The old run stays "
        "in the journal."
    )
    return (
        f"{job.file.name} must be unchanged since its run '{run.name}' started, and is not:\n"
        f"{lines}\n{fix}"
    )


def _complete(journal: Journal, name: str, now: Fingerprint) -> None:
    """Record the items of a run that was made by its configuration, when it is first opened."""
    run = journal.find(name)
    if run is not None and CONFIG in run.spec and "fingerprint" not in run.spec:
        journal.amend(run, {"fingerprint": now.to_json()})


def _adopt(journal: Journal, run: Run, config: JobRunConfig, *, named: bool) -> None:
    """Record the configuration of a run of an older version, or what the run writes now."""
    before = config_of(run)
    if before is None:
        amend(journal, run, config)
        return
    assert isinstance(before, JobRunConfig)
    choices = replace(before.choices, details=config.choices.details)
    now = replace(before, choices=choices)
    if named:
        now = replace(now, output=config.output, exports=config.exports or before.exports)
    if now != before:
        amend(journal, run, now)


# Making -----------------------------------------------------------------------------------------


def _new_run(
    journal: Journal,
    job: Job,
    config: JobRunConfig,
    now: Fingerprint,
    more: Mapping[str, JSON],
    name: str | None,
) -> Run:
    spec: dict[str, JSON] = {
        **more,
        CONFIG: config_to_json(config, folder_of(journal.path)),
        "fingerprint": now.to_json(),
        **({"until": str(budget)} if (budget := job_budget(job)) else {}),
    }
    if name is not None:
        return journal.create(name, kind=JOB_KIND, spec=spec)
    while True:
        free = _free_name(journal, job)
        try:
            return journal.create(free, kind=JOB_KIND, spec=spec)
        except RunError:
            if journal.find(free) is None:  # not that another process was faster
                raise


def _free_name(journal: Journal, job: Job) -> str:
    """Return the job's name if no run has it, else with the first free number."""
    safe = safe_name(job.name)
    taken = {run.name for run in journal.runs()}
    number = 1
    while (name := safe if number == 1 else f"{safe}-{number}") in taken:
        number += 1
    return name


def journal_of(path: Path | str | None) -> Journal:
    """Open the journal at a path, or the one of the working folder."""
    return Journal() if path is None else Journal(path)
