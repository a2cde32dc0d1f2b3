"""Finds the run of a job in the journal, or makes one that takes over what earlier runs have done.

Knows hashes, runs and results; loads no model.
"""

from __future__ import annotations

import time
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

from ostinato.errors import InputError, RunError, RunLocked
from ostinato.journal import JSON, Journal, Run, RunSession, safe_name
from ostinato.refine.job.changes import (
    Fingerprint,
    ItemBudget,
    JobChanges,
    changed_sections,
    compare,
)
from ostinato.refine.job.config import ITEM_BUDGET, Job
from ostinato.refine.job.item_index import ItemIndex, Keys, forget_indexes
from ostinato.refine.job.job_items import pages, read_job_items
from ostinato.refine.job.job_run import RUN_KIND, JobRun, has_all, job_budget
from ostinato.refine.job.only import (
    SPEC_KEY,
    Only,
    only_spec,
    require_base,
    still_to_take_over,
    taken_over,
    works_again,
    works_on,
)
from ostinato.refine.job.output_claim import OutputClaim
from ostinato.refine.job.preflight import require_ready

Row = Mapping[str, Any]

CARRIED = "carried"
"""Marks a result that was taken over from an earlier run."""

OpenMode = Literal["resume", "fresh", "update"]

UNUSED_SECONDS = 24 * 3600.0
"""How long an index of items is kept that no run uses."""


def open_job(
    job: Job,
    journal: Journal,
    *,
    limit: int | None = None,
    mode: OpenMode = "resume",
    spec: Mapping[str, JSON] | None = None,
    name: str | None = None,
    only: Only | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> JobRun:
    """Find the job's run, or create one. Loads no model.

    The run is the newest one of the same job file and output that equals the job as it is now; with
    `name`, the run of that name, for example a branch. A new run takes over the results of earlier
    runs that would come out the same. `mode`: "resume" refuses to write an item again whose reply
    an earlier run has; "update" writes again what the changes affect; "fresh" writes everything
    again. `spec` is recorded with a new run. With `only`, a new run works again on items of the
    newest one of the output that were not accepted, and takes over its other results, whatever
    seed, strategy and model they come from; an unfinished run of that kind is resumed. `say` gets
    lines about the progress of a long input.

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
    now = Fingerprint(sections=job.sections(), items=items.index)
    earlier = _EarlierRuns(journal, job, now)
    _refuse_two_writers(journal, job)
    _delete_untouched(journal, job, earlier)
    reused = _Reused(items.index)
    if only is not None:
        run = earlier.newest()
    else:
        run = earlier.nearest(limit) if name is None else named_run(journal, job, name)
    changes = JobChanges() if run is None else earlier.changes(run)
    opened = partial(JobRun, job=job, items=items, router=router, output_claim=output_claim)
    make = partial(_new_run, journal, job, limit, now)
    if only is not None:
        base = require_base(job, run, changes.sections)
        reused.complete(journal, base, earlier)
        if works_on(base) == only and not changes and not has_all(base, items.index):
            return opened(run=base)
        reused.keep(base, earlier.before(base).items, only)
        if reused.count == len(items):
            return opened(run=base)
        _refuse_smaller_output(job, len(items), whole=items.whole)
        run = make({**(spec or {}), **only_spec(only, base)}, None)
        reused.carry_over(run)
        journal.amend(run, taken_over(run))
        _forget_indexes(journal, folder)
        return opened(run=run, reused=reused.count)
    if run is not None and mode != "fresh" and (not changes or earlier.covers(run)):
        reused.complete(journal, run, earlier)
        return opened(run=run)
    if mode != "fresh":
        reused.find(earlier)
    if run is not None and mode == "resume" and (changes.lossy or name is not None):
        again = len(items) - reused.count
        raise InputError(_changed_message(job, run, changes, again, named=name is not None))
    _refuse_smaller_output(job, len(items), whole=items.whole)
    run = make(spec or {}, name)
    reused.carry_over(run)
    _forget_indexes(journal, folder)
    return opened(run=run, reused=reused.count)


def items_folder(journal: Journal) -> Path:
    """Return the folder of a journal's indexes of items."""
    return journal.path.parent / "items"


def _forget_indexes(journal: Journal, folder: Path) -> None:
    used = [_index(run).get("file") for run in journal.runs()]
    forget_indexes(folder, map(str, used), time.time() - UNUSED_SECONDS)


def _index(run: Run) -> Mapping[str, object]:
    value = _fingerprint(run).get("index")
    return value if isinstance(value, dict) else {}


# Finding ----------------------------------------------------------------------------------------


def _runs_of(journal: Journal, job: Job) -> Iterator[Run]:
    """Yield the runs of a job file, newest first; a branch is found by its name only."""
    for run in journal.runs():
        row = run.now()
        # A branch has the specification of its parent, and must not be mistaken for it.
        if row.kind == RUN_KIND and row.parent is None and row.spec.get("job") == str(job.file):
            yield run


class _EarlierRuns:
    """The runs of a job file and what has changed since each, which is looked up once."""

    def __init__(self, journal: Journal, job: Job, now: Fingerprint) -> None:
        assert now.items is not None
        self.journal, self.job, self.now, self.items = journal, job, now, now.items
        self._changes: dict[str, JobChanges] = {}
        self._before: dict[str, Fingerprint] = {}

    def __iter__(self) -> Iterator[Run]:
        return _runs_of(self.journal, self.job)

    def before(self, run: Run) -> Fingerprint:
        """Return the fingerprint that a run was started with."""
        if run.id not in self._before:
            folder = items_folder(self.journal)
            self._before[run.id] = Fingerprint.from_json(_fingerprint(run), folder)
        return self._before[run.id]

    def sections(self, run: Run) -> tuple[str, ...]:
        """Return the sections that have changed since a run started."""
        return changed_sections(self.before(run).sections, self.now.sections)

    def changes(self, run: Run) -> JobChanges:
        """Return what changed since a run started.

        A raised item budget affects only the items that the old one ended.
        """
        if run.id not in self._changes:
            changes = compare(self.before(run), self.now)
            raised = self._raised(run)
            if raised is not None and ITEM_BUDGET in changes.sections:
                cut = Keys.of(key for key, row in run.results() if raised.ended(row))
                changes = changes.with_raised_budget(raised, cut)
            self._changes[run.id] = changes
        return self._changes[run.id]

    def nearest(self, limit: int | None) -> Run | None:
        """Return the newest run of the job's output that equals the job, or covers its items.

        Where none does, the newest of the same limit: it shows what has changed. Else the newest.
        """
        output = str(self.job.output)
        runs = [run for run in self if run.spec.get("output") == output]
        choices: Sequence[Callable[[Run], bool]] = (
            lambda run: not self.sections(run) and not self.changes(run),
            self.covers,
            lambda run: run.spec.get("limit") == limit,
            lambda run: True,
        )
        return next((run for choice in choices for run in runs if choice(run)), None)

    def newest(self) -> Run | None:
        """Return the newest run of the job's output."""
        output = str(self.job.output)
        return next((run for run in self if run.spec.get("output") == output), None)

    def covers(self, run: Run) -> bool:
        """Return whether a run has a result of every item, and changes affect none of them."""
        if self.sections(run) or run.count_results() < len(self.items):
            return False
        changes = self.changes(run)
        return not changes.lossy and changes.cut is None and has_all(run, self.items)

    def _raised(self, run: Run) -> ItemBudget | None:
        before = run.spec.get("item_budget")  # older runs do not record it
        if not isinstance(before, list):
            return None
        return ItemBudget.of(before).raised_to(ItemBudget.of_job(self.job))


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


def _delete_untouched(journal: Journal, job: Job, earlier: _EarlierRuns) -> None:
    """Delete the runs of other versions of the job that have done nothing.

    A wrong job can so be fixed without --fresh.
    """
    for run in list(_runs_of(journal, job)):
        if run.spec.get("output") == str(job.output) and _untouched(run) and earlier.changes(run):
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


class _Reused:
    """Which results of earlier runs would come out the same: two bytes for an item."""

    def __init__(self, index: ItemIndex) -> None:
        self.index = index
        self.count = 0
        self._runs: list[Run] = []
        self._from = array("H")  # by position: the number of the run in `_runs`, from 1

    def find(self, earlier: _EarlierRuns) -> None:
        """Look through the runs, the newest first.

        Runs of other outputs count: a reply does not depend on where it is written.
        """
        for run in earlier:
            before = earlier.before(run).items
            # Changed sections affect every item, a raised budget perhaps not.
            if before is None or {*earlier.sections(run)} - {ITEM_BUDGET}:
                continue
            changes = earlier.changes(run)
            if not changes.sections:
                self._take(run, before, partial(_comes_out_the_same, run, changes))

    def keep(self, run: Run, before: ItemIndex | None, only: Only) -> None:
        """Take all results of unchanged items, except those that are worked on again."""
        if before is not None:
            self._take(run, before, lambda row: not works_again(row, only))

    def complete(self, journal: Journal, run: Run, earlier: _EarlierRuns) -> None:
        """Take over what a process that was killed while it made a run had not yet taken over."""
        if (missing := still_to_take_over(journal, run)) is None:
            return
        base, only = missing
        rest = _Reused(self.index)
        rest.keep(base, earlier.before(base).items, only)
        rest.carry_over(run)
        journal.amend(run, taken_over(run))

    def _take(self, run: Run, before: ItemIndex, keeps: Callable[[Row], bool]) -> None:
        if not self._from:
            self._from = array("H", bytes(2 * len(self.index)))
        self._runs.append(run)
        for page in pages(self.index.unchanged_since(before)):
            wanted = [pair for pair in page if not self._from[pair[0]]]
            rows = run.results_of([key for _, key in wanted])
            for number, key in wanted:
                if key in rows and keeps(rows[key]):
                    self._from[number] = len(self._runs)
                    self.count += 1

    def carry_over(self, run: Run) -> None:
        """Record the results in a new run."""
        if not self.count:
            return
        with RunSession(run, keep="results") as session:
            for page in pages(self.index.facts()):
                present = run.results_of([facts.key for facts in page])
                page = [facts for facts in page if facts.key not in present]
                for number, other in enumerate(self._runs, 1):
                    taken = [facts for facts in page if self._from[facts.number] == number]
                    rows = other.results_of([facts.key for facts in taken]) if taken else {}
                    for facts in taken:
                        # With the new index: the item may have moved in the input.
                        row = {**rows[facts.key], "index": facts.number, CARRIED: True}
                        session.result(facts.key, row)
                session.flush()


def _comes_out_the_same(run: Run, changes: JobChanges, row: Row) -> bool:
    # What a run of `--only` took over may come from another seed, strategy or model.
    return changes.keeps(row) and not (SPEC_KEY in run.spec and row.get(CARRIED))


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


def journal_of(path: Path | str | None) -> Journal:
    """Open the journal at a path, or the one of the working folder."""
    return Journal() if path is None else Journal(path)
