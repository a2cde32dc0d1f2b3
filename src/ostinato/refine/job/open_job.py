"""Finds the run of a job in the journal, or makes one that takes over what earlier runs have done.

Knows hashes, runs and results; loads no model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

from ostinato.errors import InputError, RunError, RunLocked
from ostinato.journal import JSON, Journal, Run, RunSession, safe_name
from ostinato.refine.job.changes import Fingerprint, ItemBudget, JobChanges, compare
from ostinato.refine.job.config import Job
from ostinato.refine.job.items import Item
from ostinato.refine.job.job_run import RUN_KIND, JobRun, job_budget
from ostinato.refine.job.output_claim import OutputClaim
from ostinato.refine.job.preflight import require_ready

CARRIED = "carried"
"""Marks a result that was taken over from an earlier run."""

OpenMode = Literal["resume", "fresh", "update"]

ChangesOf = Callable[[Run], JobChanges]
"""Returns what has changed in the job since a run of it started."""


def open_job(
    job: Job,
    journal: Journal,
    *,
    limit: int | None = None,
    mode: OpenMode = "resume",
    spec: Mapping[str, JSON] | None = None,
    name: str | None = None,
) -> JobRun:
    """Find the job's run, or create one. Loads no model.

    The run is the newest one of the same job file and output that equals the job as it is now; with
    `name`, the run of that name, for example a branch. A new run takes over the results of earlier
    runs that would come out the same. `mode`: "resume" refuses to write an item again whose reply
    an earlier run has; "update" writes again what the changes affect; "fresh" writes everything
    again. `spec` is recorded with a new run.

    Raises `OstinatoError` for what the job needs and this machine lacks, `InputError` for bad
    input, for a changed job in mode "resume", and for an output of
    another job, of a branch's parent, or with more replies than this run has items; `RunLocked`
    while another process writes the same output.
    """
    require_ready(job)
    everything = job.items()
    items, router = tuple(everything[:limit]), job.router()
    output_claim = OutputClaim(job.output, journal.path.parent)
    # Before a run is created: an output of another job must leave no trace in the journal.
    output_claim.claim(job.file)
    now = Fingerprint.of(job, router, items)
    present = frozenset(item.key for item in everything)
    changes_of = partial(_changes, now=now, job=job, present=present)
    _refuse_two_writers(journal, job)
    _delete_untouched(journal, job, changes_of)
    if name is not None:
        run = named_run(journal, job, name)
    else:
        run = _nearest_run(journal, job, limit, items, changes_of)
    changes = JobChanges() if run is None else changes_of(run)
    opened = partial(
        JobRun,
        job=job,
        items=items,
        router=router,
        output_claim=output_claim,
        whole=len(items) == len(everything),
    )
    if run is not None and mode != "fresh" and (not changes or _covers(run, changes, items)):
        return opened(run=run)
    reused = {} if mode == "fresh" else _reusable(journal, job, items, changes_of)
    if run is not None and mode == "resume" and (changes.lossy or name is not None):
        again = len(items) - len(reused)
        raise InputError(_changed_message(job, run, changes, again, named=name is not None))
    _refuse_smaller_output(job, len(items), whole=len(items) == len(everything))
    run = _new_run(journal, job, limit, now, spec or {}, name)
    _carry_over(run, items, reused)
    return opened(run=run, reused=len(reused))


# Finding ----------------------------------------------------------------------------------------


def _runs_of(journal: Journal, job: Job) -> Iterator[Run]:
    """Yield the runs of a job file, newest first; a branch is found by its name only."""
    for run in journal.runs():
        row = run.now()
        # A branch has the specification of its parent, and must not be mistaken for it.
        if row.kind == RUN_KIND and row.parent is None and row.spec.get("job") == str(job.file):
            yield run


def _nearest_run(
    journal: Journal, job: Job, limit: int | None, items: Sequence[Item], changes_of: ChangesOf
) -> Run | None:
    """Return the newest run of the job's output that equals the job, or has a result of every item.

    Where none does, the newest of the same limit: it shows what has changed. Else the newest.
    """
    output = str(job.output)
    runs = [run for run in _runs_of(journal, job) if run.spec.get("output") == output]
    changes = {run.id: changes_of(run) for run in runs}
    choices: Sequence[Callable[[Run], bool]] = (
        lambda run: not changes[run.id],
        lambda run: _covers(run, changes[run.id], items),
        lambda run: run.spec.get("limit") == limit,
        lambda run: True,
    )
    return next((run for choice in choices for run in runs if choice(run)), None)


def _covers(run: Run, changes: JobChanges, items: Sequence[Item]) -> bool:
    """Return whether a run has a result of every item that the changes do not affect."""
    if changes.lossy or changes.cut is not None:
        return False
    done = {key for key, _ in run.results()}
    return all(item.key in done for item in items)


def named_run(journal: Journal, job: Job, name: str) -> Run | None:
    """Return the run of a name, None if there is none.

    Raises `InputError` for a run of another job, and for a branch whose output would be its
    parent's.
    """
    run = journal.find(name)
    if run is None:
        return None
    row = run.now()
    if row.kind != RUN_KIND or row.spec.get("job") != str(job.file):
        raise InputError(
            f"--run must name a run of {job.file.name}, got {name!r}, which is another job's. Name "
            "one that `ostinato runs` lists for this job, or a new one."
        )
    parent = journal.find(row.parent[0]) if row.parent is not None else None
    if parent is not None and parent.spec.get("output") == str(job.output):
        raise InputError(
            f"The output of the branch {row.name!r} must differ from its parent's, got "
            f"{job.output}, which is that of {parent.name!r}. Name another with --output."
        )
    return run


def _changes(run: Run, *, now: Fingerprint, job: Job, present: frozenset[str]) -> JobChanges:
    """Return what changed since a run started; `present` are the keys of the whole input.

    A raised item budget affects only the items that the old one ended.
    """
    changes = compare(Fingerprint.from_json(_fingerprint(run)), now, present)
    before = run.spec.get("item_budget")  # older runs do not record it
    if not isinstance(before, list):
        return changes
    raised = ItemBudget.of(before).raised_to(ItemBudget.of_job(job))
    if raised is None:
        return changes
    return changes.with_raised_budget([key for key, row in run.results() if raised.ended(row)])


def _fingerprint(run: Run) -> Mapping[str, object]:
    value = run.spec.get("fingerprint")
    return value if isinstance(value, dict) else {}


# What must not happen ---------------------------------------------------------------------------


def _refuse_two_writers(journal: Journal, job: Job) -> None:
    """Raise `RunLocked` while a run of the same output is driven: the last one would win."""
    for run in _runs_of(journal, job):
        if run.spec.get("output") == str(job.output) and (pid := run.driver_pid) is not None:
            raise RunLocked(
                f"The output {job.output.name} is written by the run {run.name!r}, which the "
                f"process {pid} drives. Wait until it ends, or name another with --output."
            )


def _delete_untouched(journal: Journal, job: Job, changes_of: ChangesOf) -> None:
    """Delete the runs of other versions of the job that have done nothing.

    A wrong job can so be fixed without --fresh.
    """
    for run in list(_runs_of(journal, job)):
        if run.spec.get("output") == str(job.output) and _untouched(run) and changes_of(run):
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


def _changed_message(job: Job, run: Run, changes: JobChanges, again: int, *, named: bool) -> str:
    lines = "\n".join(f"  - {sentence}" for sentence in changes.sentences(again))
    fix = (
        "Undo the changes, or name another --run."
        if named
        else "Write only what changed with --update, or everything with --fresh. The old run stays "
        "in the journal."
    )
    return (
        f"{job.file.name} must be unchanged since its run '{run.name}' started, and is not:\n"
        f"{lines}\n{fix}"
    )


# Making -----------------------------------------------------------------------------------------


def _reusable(
    journal: Journal, job: Job, items: Sequence[Item], changes_of: ChangesOf
) -> dict[str, Mapping[str, Any]]:
    """Return the results of earlier runs that would come out the same, by key.

    Runs of other outputs count: a reply does not depend on where it is written.
    """
    keys = {item.key for item in items}
    found: dict[str, Mapping[str, Any]] = {}
    for run in _runs_of(journal, job):
        changes = changes_of(run)
        if changes.sections:  # they affect every item
            continue
        stale = changes.stale(items)
        for key, row in run.results():
            if key in keys and key not in stale:
                found.setdefault(key, row)
    return found


def _new_run(
    journal: Journal,
    job: Job,
    limit: int | None,
    now: Fingerprint,
    more: Mapping[str, JSON],
    name: str | None,
) -> Run:
    spec: dict[str, JSON] = {
        **more,
        "job": str(job.file),
        "output": str(job.output),
        "limit": limit,
        "fingerprint": now.to_json(),
        **({"until": str(budget)} if (budget := job_budget(job)) else {}),
        "item_budget": [job.budgets.item_tokens, job.budgets.item_seconds],
        "checks": [check.name for check in job.checks],
    }
    if name is not None:
        return journal.create(name, kind=RUN_KIND, spec=spec)
    while True:
        free = _free_name(journal, job)
        try:
            return journal.create(free, kind=RUN_KIND, spec=spec)
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


def _carry_over(run: Run, items: Sequence[Item], rows: Mapping[str, Mapping[str, Any]]) -> None:
    """Record results of earlier runs in a new one."""
    if not rows:
        return
    with RunSession(run, keep="results") as session:
        for item in items:
            if item.key in rows:
                # With the new index: the item may have moved in the input.
                session.result(item.key, {**rows[item.key], "index": item.index, CARRIED: True})
        session.flush()


def journal_of(path: Path | str | None) -> Journal:
    """Open the journal at a path, or the one of the working folder."""
    return Journal() if path is None else Journal(path)
