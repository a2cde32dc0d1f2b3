"""What `--update` would do, found out before anything is written. Makes no run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ostinato.journal import JSON, Journal
from ostinato.refine.job.changes import Fingerprint
from ostinato.refine.job.config import Job
from ostinato.refine.job.earlier_runs import EarlierRuns, items_folder
from ostinato.refine.job.job_items import read_job_items
from ostinato.refine.job.reused import ReusedResults
from ostinato.refine.job.run_config import JobRunConfig


@dataclass(frozen=True, kw_only=True)
class UpdatePlan:
    """How many items an update takes over, judges and writes.

    `same` would come out the same, `judged` are accepted replies that changed checks judge, of
    which `passed` stay.
    """

    items: int
    same: int
    judged: int
    passed: int

    @property
    def written(self) -> int:
        """How many items are written."""
        return self.items - self.same - self.passed

    def to_json(self) -> dict[str, JSON]:
        """Return the numbers as a JSON object."""
        return {
            "same": self.same,
            "judged": self.judged,
            "passed": self.passed,
            "written": self.written,
        }


def plan_update(
    job: Job,
    journal: Journal,
    limit: int | None = None,
    *,
    say: Callable[[str], None] = lambda line: None,
) -> UpdatePlan:
    """Find out what an update of a job would take over from its earlier runs.

    Judges accepted replies by changed checks, with their models where they have some.
    """
    items = read_job_items(job, job.router(), items_folder(journal), say=say).first(limit)
    config = JobRunConfig.of(job, limit)
    earlier = EarlierRuns(journal, job, config, Fingerprint(items=items.index))
    reused = ReusedResults(items, job.checks)
    reused.find(earlier, anew=True)
    same = reused.count - reused.to_judge
    stayed = sum(map(len, reused.pages()))
    return UpdatePlan(items=len(items), same=same, judged=reused.to_judge, passed=stayed - same)
