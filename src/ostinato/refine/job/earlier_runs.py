"""The earlier runs of a job, and what has changed in it since each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from ostinato.journal import Difference, Journal, Run
from ostinato.refine.job.changes import Fingerprint, JobChanges, compare, is_item_budget
from ostinato.refine.job.config import Job
from ostinato.refine.job.item_index import Keys
from ostinato.refine.job.job_run import has_all
from ostinato.refine.job.run_config import (
    JobRunConfig,
    changes_of_settings,
    item_budget_of,
    job_place,
)
from ostinato.refine.settings import ItemBudget, changed_settings
from ostinato.runs import config_of, folder_of


def items_folder(journal: Journal) -> Path:
    """Return the folder of a journal's indexes of items."""
    return journal.path.parent / "items"


def fingerprint_of(run: Run) -> Mapping[str, object]:
    """Return what a run recorded of its items."""
    value = run.spec.get("fingerprint")
    return value if isinstance(value, dict) else {}


def index_of_run(run: Run) -> Mapping[str, object]:
    """Return what a run recorded of the index of its items."""
    value = fingerprint_of(run).get("index")
    return value if isinstance(value, dict) else {}


def runs_of(journal: Journal, job: Job) -> Iterator[Run]:
    """Yield the runs of a job file, newest first; a branch is found by its name only."""
    for run in journal.runs():
        # A branch has the specification of its parent, and must not be mistaken for it.
        if run.parent is None and is_of(run, job):
            yield run


def is_of(run: Run, job: Job) -> bool:
    """Return whether a run is one of a job's file."""
    place = job_place(run)
    return place is not None and place.file.resolve() == job.file.resolve()


def writes(run: Run, job: Job) -> bool:
    """Return whether a run writes the output of a job."""
    place = job_place(run)
    return place is not None and place.output.resolve() == job.output.resolve()


class EarlierRuns:
    """The runs of a job file and what has changed since each, which is looked up once."""

    def __init__(self, journal: Journal, job: Job, config: JobRunConfig, now: Fingerprint) -> None:
        assert now.items is not None
        self.journal, self.job, self.config = journal, job, config
        self.now, self.items = now, now.items
        self._settings: dict[str, tuple[Difference, ...]] = {}
        self._changes: dict[str, JobChanges] = {}
        self._before: dict[str, Fingerprint] = {}

    def __iter__(self) -> Iterator[Run]:
        return runs_of(self.journal, self.job)

    def before(self, run: Run) -> Fingerprint:
        """Return the fingerprint that a run was started with."""
        if run.id not in self._before:
            folder = items_folder(self.journal)
            self._before[run.id] = Fingerprint.from_json(fingerprint_of(run), folder)
        return self._before[run.id]

    def settings(self, run: Run) -> tuple[Difference, ...]:
        """Return the settings that have changed since a run started."""
        if run.id not in self._settings:
            found = changes_of_settings(run, self.config, self.job)
            self._settings[run.id] = tuple(found)
        return self._settings[run.id]

    def changes(self, run: Run) -> JobChanges:
        """Return what changed since a run started.

        A raised item budget affects only the items that the old one ended.
        """
        if run.id not in self._changes:
            changes = compare(self.before(run), self.now, self.settings(run))
            raised = self._raised(run)
            if raised is not None and any(map(is_item_budget, changes.settings)):
                cut = Keys.of(key for key, row in run.results() if raised.ended(row))
                changes = changes.with_raised_budget(raised, cut)
            self._changes[run.id] = changes
        return self._changes[run.id]

    def changed_checks(self, run: Run) -> frozenset[str] | None:
        """Return the checks that are new or changed since a run started.

        None where other settings have changed, too, but for limits of an item.
        """
        config = config_of(run)
        if not isinstance(config, JobRunConfig):
            return None
        was, now = config.settings, self.config.settings
        rest = replace(was, checks=now.checks, order=now.order)
        found = changed_settings(rest, now, folder_of(run.database.path))
        if not all(map(is_item_budget, found)):
            return None
        return frozenset(name for name in now.checks if now.checks[name] != was.checks.get(name))

    def nearest(self, limit: int | None) -> Run | None:
        """Return the newest run of the job's output that equals the job, or covers its items.

        Where none does, the newest of the same limit: it shows what has changed. Else the newest.
        """
        runs = [run for run in self if writes(run, self.job)]
        choices: Sequence[Callable[[Run], bool]] = (
            lambda run: not self.settings(run) and not self.changes(run),
            self.covers,
            lambda run: (place := job_place(run)) is not None and place.limit == limit,
            lambda run: True,
        )
        return next((run for choice in choices for run in runs if choice(run)), None)

    def newest(self) -> Run | None:
        """Return the newest run of the job's output."""
        return next((run for run in self if writes(run, self.job)), None)

    def covers(self, run: Run) -> bool:
        """Return whether a run has a result of every item, and changes affect none of them."""
        if self.settings(run) or run.count_results() < len(self.items):
            return False
        changes = self.changes(run)
        return not changes.lossy and changes.cut is None and has_all(run, self.items)

    def _raised(self, run: Run) -> ItemBudget | None:
        before = item_budget_of(run)
        return None if before is None else before.raised_to(self.config.settings.budget)
