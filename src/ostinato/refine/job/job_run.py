"""One job at work: its run in the journal, its loop, its output and its report.

No second driver: the loop is the one that `Refine` builds. Everything is refused before the model
is loaded.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ostinato.errors import InputError
from ostinato.journal import JSON, Journal, Run, RunSession, StopKind, Stopped
from ostinato.loop import Budget, Condition, Loop, Seconds
from ostinato.refine.job.changes import Fingerprint, ItemBudget, JobChanges, compare
from ostinato.refine.job.checks import prepare
from ostinato.refine.job.config import Job
from ostinato.refine.job.items import Item
from ostinato.refine.job.output_claim import OutputClaim
from ostinato.refine.report.html import Outcome, report_page
from ostinato.refine.results import Result, from_lane, write_results, write_whole
from ostinato.refine.routing.router import Router

if TYPE_CHECKING:
    from ostinato.models import LanguageModel
    from ostinato.refine.refine import Refine
    from ostinato.remote import Server

RUN_KIND = "refine"
CARRIED = "carried"
"""Marks a row that was taken over from an earlier run."""

How = Literal["go on", "fresh", "update"]


@dataclass(frozen=True, kw_only=True)
class JobRun:
    """A job with its items and its run. Make one with `open_job`."""

    job: Job
    items: tuple[Item, ...]
    planner: Router
    run: Run
    note: OutputClaim

    @property
    def stopped(self) -> Stopped | None:
        """Why the run stopped; None where it can simply go on."""
        return self.run.stopped if self.run.status == "stopped" else None

    @property
    def finished(self) -> bool:
        """Whether every item is done."""
        return len(self.results()) == len(self.items)

    @property
    def out_of_budget(self) -> bool:
        """Whether the job's budget ended the run, and is still the same."""
        return self._ended_by_budget and self.run.until == str(job_budget(self.job))

    @property
    def other_budget(self) -> str:
        """What became of the budget that ended the run; empty where it is still the same."""
        if not self._ended_by_budget or self.out_of_budget:
            return ""
        return (
            f"The job's budget was {self.run.until}, and is {job_budget(self.job) or 'none'} now."
        )

    @property
    def _ended_by_budget(self) -> bool:
        return self.stopped is not None and self.stopped.kind is StopKind.BUDGET

    @property
    def ended_by_person(self) -> bool:
        """Whether a person stopped the run for good."""
        return self.stopped is not None and self.stopped.kind is StopKind.PERSON

    def loop(self, model: LanguageModel | str | None = None) -> Loop:
        """Load the model, and return the loop, which goes on where the run was."""
        refine = refinement(self.job, self.items, self.planner, model)
        return refine.loop(until=job_budget(self.job), run=self.run, keep=self.job.keep)

    def settle(self) -> None:
        """Record that the run has ended, where it was killed between its last result and that.

        A branch of a run at its end has never been driven, and is settled too.
        """
        row = self.run.now()
        if row.status in ("paused", "interrupted") and self.finished:
            ended = Stopped(StopKind.ENDED, f"All {len(self.items)} items are done.", "ended")
            with RunSession(self.run, keep="results") as driver:
                driver.finish("stopped", ended, row.tick, row.position)

    def results(self) -> list[Result]:
        """Return the results that are in the journal, in the order of the items."""
        rows = dict(self.run.results())
        return [
            from_lane(item.key, rows[item.key], self.planner.plan(item.columns))
            if rows[item.key]["stopped"]["kind"] != StopKind.ERROR.value
            else from_lane(item.key, rows[item.key])
            for item in self.items
            if item.key in rows
        ]

    def write(self, stopped: Stopped | None) -> Outcome:
        """Write the output and the report from the journal; return what they were made of."""
        outcome = Outcome(
            job=self.job,
            planner=self.planner,
            items=self.items,
            results=self.results(),
            stopped=stopped,
            seconds=self.note.seconds(self.run.id),
            when=datetime.now(UTC).strftime("%d %B %Y, %H:%M UTC"),
        )
        write_results(self.job.output, outcome.results)
        write_whole(self.job.report, report_page(outcome))
        return outcome


def refinement(
    job: Job,
    items: Sequence[Item],
    planner: Router,
    model: LanguageModel | str | None = None,
    **more: Any,
) -> Refine:
    """Build what a job file describes; `model` takes the place of the job's own.

    `more` goes to `Refine` as it is.
    """
    from ostinato.decode import SamplingParams
    from ostinato.models import load_model
    from ostinato.refine.refine import Refine
    from ostinato.remote import SpendLimit

    prepare(job.checks)
    sampling = job.sampling
    written_by: LanguageModel | Server | str
    if model is not None:
        written_by = model
    else:
        written_by = job.server or load_model(
            job.model,
            adapter=job.adapter or None,
            compile=job.compile,
            int8=job.int8,
            device=job.device,
        )
    settings: dict[str, Any] = {
        "strategy": job.strategy,
        "sampling": SamplingParams(
            temperature=sampling.temperature,
            top_k=sampling.top_k,
            top_p=sampling.top_p,
            min_p=sampling.min_p,
            repetition_penalty=sampling.repetition_penalty,
            end_bias=sampling.end_bias,
            end_within=sampling.end_within,
        ),
        "max_new_tokens": job.max_new_tokens,
        "tokens": job.budgets.item_tokens,
        "seconds": job.budgets.item_seconds,
        "seed": job.seed,
        "slots": job.slots,
        "ready": planner.ready,
        **more,
    }
    if job.server is not None:
        settings["allowance"] = SpendLimit(job.budgets.job_tokens, job.budgets.job_cost)
    return Refine(
        written_by,
        [(item.key, item.columns) for item in items],
        prompt=planner.messages,
        checks=job.checks,
        **settings,
    )


def job_budget(job: Job) -> Condition | None:
    """Return the condition that ends the whole job, or None where it has no budget."""
    parts: list[Condition] = []
    if job.budgets.job_tokens is not None:
        parts.append(Budget("tokens", job.budgets.job_tokens))
    if job.budgets.job_seconds is not None:
        parts.append(Seconds(job.budgets.job_seconds))
    if job.budgets.job_cost is not None:
        parts.append(Budget("cost", job.budgets.job_cost))
    return reduce(lambda one, other: one | other, parts) if parts else None


def open_job(
    job: Job,
    journal: Journal,
    *,
    limit: int | None = None,
    how: How = "go on",
    spec: Mapping[str, JSON] | None = None,
    name: str | None = None,
) -> JobRun:
    """Find the job's run, or make one. Loads no model.

    The run is that of the same job file, output and limit; or the one of this `name`, as of a
    branch. `fresh` makes a new one; `update` too, but takes over what the changes since do not
    touch. `spec` is recorded with a run that this makes. Raises `InputError` for bad input, for an
    output that is another job's, or that of a branch's parent, and, with `go on`, for a job or
    input that changed since.
    """
    items = tuple(job.items(limit))
    planner = job.router()
    note = OutputClaim(job.output, journal.path.parent)
    note.claim(job.file)
    now = Fingerprint.of(job, planner, items)
    run = find_run(journal, job, limit) if name is None else named_run(journal, job, name)
    changes = _changes(run, now, job) if run else JobChanges()
    if run is not None and changes and _untouched(run):
        journal.delete(run.name)
        run, changes = None, JobChanges()
    if run is not None and changes and how == "go on":
        raise InputError(_told(job, run, changes, named=name is not None))
    if run is None or how == "fresh":
        run = _new_run(journal, job, limit, now, spec or {}, name)
    elif changes and how == "update":
        new = _new_run(journal, job, limit, now, spec or {})
        run = _carried_over(new, run, items, changes)
    return JobRun(job=job, items=items, planner=planner, run=run, note=note)


def find_run(journal: Journal, job: Job, limit: int | None) -> Run | None:
    """Return the latest run of a job with its output and limit; a branch has a name to go by."""
    wanted = _identity(job, limit)
    for run in journal.runs():
        row = run.now()
        if row.kind != RUN_KIND or row.parent is not None:
            continue
        if all(row.spec.get(key) == wanted[key] for key in wanted):
            return run
    return None


def named_run(journal: Journal, job: Job, name: str) -> Run | None:
    """Return the run of a name, None where there is none.

    Raises `InputError` for one that is no run of the job, and for a branch whose output would be
    its parent's.
    """
    run = journal.find(name)
    if run is None:
        return None
    row = run.now()
    if row.kind != RUN_KIND or row.spec.get("job") != str(job.file):
        raise InputError(
            f"--run must name a run of {job.file.name}, got {name!r}, which is another's. Name one "
            "that `ostinato runs` lists for this job, or a new one."
        )
    parent = journal.find(row.parent[0]) if row.parent is not None else None
    if parent is not None and parent.spec.get("output") == str(job.output):
        raise InputError(
            f"The branch {row.name!r} must have an output of its own, got that of {parent.name!r}: "
            f"{job.output}. Name another with --output."
        )
    return run


def _untouched(run: Run) -> bool:
    """Whether a run got no further than its name, as where the model could not be loaded."""
    return run.tick == 0 and not any(True for _ in run.results())


def _changes(run: Run, now: Fingerprint, job: Job) -> JobChanges:
    """Return what changed since a run began. A raised item budget touches what the old one cut."""
    changes = compare(Fingerprint.from_json(_fingerprint(run)), now)
    before = run.spec.get("item_budget")  # runs of older versions do not tell it
    if not isinstance(before, list):
        return changes
    raised = ItemBudget.of(before).raised_to(ItemBudget.of_job(job))
    if raised is None:
        return changes
    return changes.with_raised_budget([key for key, row in run.results() if raised.ended(row)])


def _identity(job: Job, limit: int | None) -> dict[str, JSON]:
    return {"job": str(job.file), "output": str(job.output), "limit": limit}


def _fingerprint(run: Run) -> Mapping[str, object]:
    value = run.spec.get("fingerprint")
    return value if isinstance(value, dict) else {}


def _new_run(
    journal: Journal,
    job: Job,
    limit: int | None,
    now: Fingerprint,
    more: Mapping[str, JSON],
    name: str | None = None,
) -> Run:
    spec: dict[str, JSON] = {
        **more,
        **_identity(job, limit),
        "fingerprint": now.to_json(),
        **({"until": str(budget)} if (budget := job_budget(job)) else {}),
        "item_budget": [job.budgets.item_tokens, job.budgets.item_seconds],
        "checks": [check.name for check in job.checks],
    }
    return journal.create(name or _free_name(journal, job), kind=RUN_KIND, spec=spec)


def _free_name(journal: Journal, job: Job) -> str:
    """Return the job's name where no run has it, else with a number behind it."""
    safe = re.sub(r"[^A-Za-z0-9._-]+", "-", job.name).strip("-._")[:80] or "job"
    taken = {run.name for run in journal.runs()}
    number = 1
    while (name := safe if number == 1 else f"{safe}-{number}") in taken:
        number += 1
    return name


def _carried_over(run: Run, old: Run, items: tuple[Item, ...], changes: JobChanges) -> Run:
    """Give a new run the rows of an earlier one which the changes do not touch."""
    stale, places = changes.stale(items), {item.key: item.index for item in items}
    with RunSession(run, keep="results") as driver:
        for key, row in old.results():
            if key in places and key not in stale:
                driver.result(key, {**row, "index": places[key], CARRIED: True})
        driver.flush()
    return run


def _told(job: Job, run: Run, changes: JobChanges, *, named: bool) -> str:
    lines = "\n".join(f"  - {sentence}" for sentence in changes.sentences())
    mend = (
        "Give it as it was, or another --run."
        if named
        else "Write again only what changed with --update, or all of it with --fresh. The old run "
        "stays in the journal."
    )
    return (
        f"{job.file.name} must be as it was when its run '{run.name}' began, and is not:\n{lines}\n"
        f"{mend}"
    )


def journal_of(path: Path | str | None) -> Journal:
    """Open the journal at a path, or the one of the working folder."""
    return Journal() if path is None else Journal(path)
