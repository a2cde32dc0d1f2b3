"""One run of a job: its record in the journal, its loop, its output and its report.

Everything is checked before the model is loaded. Knows no driver: `Refine` builds the loop.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ostinato.errors import InputError, ItemError
from ostinato.journal import JSON, Journal, Run, RunSession, StopKind, Stopped, safe_name
from ostinato.loop import Budget, Condition, Loop, Seconds, items_done
from ostinato.refine.job.changes import Fingerprint, ItemBudget, JobChanges, compare
from ostinato.refine.job.checks import prepare
from ostinato.refine.job.config import Job
from ostinato.refine.job.items import Item
from ostinato.refine.job.output_claim import OutputClaim
from ostinato.refine.report.html import Outcome, report_page
from ostinato.refine.results import Result, from_lane, write_results, write_whole
from ostinato.refine.routing.router import Route, Router

if TYPE_CHECKING:
    from ostinato.models import LanguageModel
    from ostinato.refine.refine import Refine
    from ostinato.remote import Server

RUN_KIND = "refine"
CARRIED = "carried"
"""Marks a result that was taken over from an earlier run."""

OpenMode = Literal["resume", "fresh", "update"]


@dataclass(frozen=True, kw_only=True)
class JobRun:
    """A job with its items and its run in the journal. `open_job` makes one."""

    job: Job
    items: tuple[Item, ...]
    router: Router
    run: Run
    output_claim: OutputClaim

    @property
    def stopped(self) -> Stopped | None:
        """Why the run stopped; None if it can be resumed."""
        return self.run.stopped if self.run.status == "stopped" else None

    @property
    def finished(self) -> bool:
        """Whether every item has a result."""
        return len(self.results()) == len(self.items)

    @property
    def out_of_budget(self) -> bool:
        """Whether the job's budget ended the run and has not changed since."""
        return self._ended_by_budget and self.run.until == str(job_budget(self.job))

    @property
    def budget_change(self) -> str:
        """How the budget that ended the run has changed: a sentence, or empty if it has not."""
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

    def loop(
        self,
        model: LanguageModel | str | None = None,
        *,
        say: Callable[[str], None] = lambda line: None,
    ) -> Loop:
        """Load the model, and return the loop, which resumes the run.

        `say` gets a line about a big model. Raises `ModelError` for one that does not fit.
        """
        refine = refinement(self.job, self.items, self.router, model, say=say)
        return refine.loop(until=job_budget(self.job), run=self.run, keep=self.job.keep)

    def settle(self) -> None:
        """Record that the run has ended, if it was killed between its last result and that record.

        A branch of a finished run has never been driven; it is settled, too.
        """
        row = self.run.now()
        if row.status in ("paused", "interrupted") and self.finished:
            ended = Stopped(StopKind.ENDED, items_done(len(self.items)), "ended")
            with RunSession(self.run, keep="results") as session:
                session.finish("stopped", ended, row.tick, row.position)

    def results(self) -> list[Result]:
        """Return the results in the journal, in the order of the items."""
        rows = dict(self.run.results())
        return [
            from_lane(item.key, rows[item.key], self._route(item, rows[item.key]))
            for item in self.items
            if item.key in rows
        ]

    def _route(self, item: Item, row: Mapping[str, Any]) -> Route | None:
        """Return how an item was routed; None for an error, which routing could raise again."""
        if row["stopped"]["kind"] == StopKind.ERROR.value:
            return None
        try:
            return self.router.route(item.columns)
        except ItemError:  # an older version did not refuse the item
            return None

    def write(self, stopped: Stopped | None) -> Outcome:
        """Write the output and the report from the journal; return what they were made of."""
        outcome = Outcome(
            job=self.job,
            router=self.router,
            items=self.items,
            results=self.results(),
            stopped=stopped,
            seconds=self.output_claim.seconds(self.run.id),
            when=datetime.now(UTC).strftime("%d %B %Y, %H:%M UTC"),
        )
        # From the journal, not from this session: an earlier one may have finished items.
        write_results(self.job.output, outcome.results)
        write_whole(self.job.report, report_page(outcome))
        return outcome


def refinement(
    job: Job,
    items: Sequence[Item],
    router: Router,
    model: LanguageModel | str | None = None,
    *,
    say: Callable[[str], None] = lambda line: None,
    **more: Any,
) -> Refine:
    """Return the `Refine` that a job describes. `model` replaces the job's own; `say` gets a line
    about a big one.

    `more` are arguments of `Refine`; they replace those of the job.
    """
    from ostinato.refine.refine import Refine

    # First, as it is quick: a judge without a key must not wait for the model.
    prepare(job.checks)
    return Refine(
        _load_writer(job, say) if model is None else model,
        [(item.key, item.columns) for item in items],
        prompt=router.messages,
        checks=job.checks,
        **{**_refine_settings(job), "ready": router.ready, **more},
    )


def _load_writer(job: Job, say: Callable[[str], None]) -> LanguageModel | Server:
    from ostinato.inference import check_before_loading
    from ostinato.models import load_model

    if job.server is not None:
        return job.server
    check_before_loading(
        job.model,
        slots=job.slots,
        compile=job.compile,
        bits=job.bits,
        device=job.device,
        adapter=job.adapter or None,
        say=say,
    )
    return load_model(
        job.model,
        adapter=job.adapter or None,
        compile=job.compile,
        bits=job.bits,
        device=job.device,
    )


def _refine_settings(job: Job) -> dict[str, Any]:
    from ostinato.decode import SamplingParams
    from ostinato.remote import SpendLimit

    settings: dict[str, Any] = {
        "strategy": job.strategy,
        "sampling": SamplingParams(**asdict(job.sampling)),
        "max_new_tokens": job.max_new_tokens,
        "tokens": job.budgets.item_tokens,
        "seconds": job.budgets.item_seconds,
        "seed": job.seed,
        "slots": job.slots,
    }
    if job.server is not None:
        # `job_budget` ends the run after a step; the limit refuses a request before it is sent.
        settings["spend_limit"] = SpendLimit(job.budgets.job_tokens, job.budgets.job_cost)
    return settings


def job_budget(job: Job) -> Condition | None:
    """Return the condition that ends the whole job, None if it has no budget."""
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
    mode: OpenMode = "resume",
    spec: Mapping[str, JSON] | None = None,
    name: str | None = None,
) -> JobRun:
    """Find the job's run, or create one. Loads no model.

    The run is the latest one of the same job file, output and limit; with `name`, the run of that
    name, for example a branch. `mode`: "resume" requires an unchanged job; "fresh" creates a new
    run; "update" creates one that takes over the results that the changes do not affect. `spec` is
    recorded with a new run.

    Raises `InputError` for bad input, and for an output of another job or of a branch's parent. In
    mode "resume" it also refuses a job or an input that has changed.
    """
    items = tuple(job.items(limit))
    router = job.router()
    output_claim = OutputClaim(job.output, journal.path.parent)
    # Before a run is created: an output of another job must leave no trace in the journal.
    output_claim.claim(job.file)
    now = Fingerprint.of(job, router, items)
    run = find_run(journal, job, limit) if name is None else named_run(journal, job, name)
    changes = _changes(run, now, job) if run else JobChanges()
    # A run that did nothing is replaced, so that a wrong job can be fixed without --fresh.
    if run is not None and changes and _untouched(run):
        journal.delete(run.name)
        run, changes = None, JobChanges()
    if run is not None and changes and mode == "resume":
        raise InputError(_changed_message(job, run, changes, named=name is not None))
    if run is None or mode == "fresh":
        run = _new_run(journal, job, limit, now, spec or {}, name)
    elif changes and mode == "update":
        new = _new_run(journal, job, limit, now, spec or {})
        run = _carry_over(new, run, items, changes)
    return JobRun(job=job, items=items, router=router, run=run, output_claim=output_claim)


def find_run(journal: Journal, job: Job, limit: int | None) -> Run | None:
    """Return the latest run of a job with its output and limit. Branches are found by name only."""
    identity = _identity(job, limit)
    for run in journal.runs():
        row = run.now()
        # A branch has the specification of its parent, and must not be mistaken for it.
        if row.kind != RUN_KIND or row.parent is not None:
            continue
        if all(row.spec.get(key) == identity[key] for key in identity):
            return run
    return None


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


def _untouched(run: Run) -> bool:
    """Return whether a run has done nothing, for example as its model could not be loaded."""
    return run.tick == 0 and not any(True for _ in run.results())


def _changes(run: Run, now: Fingerprint, job: Job) -> JobChanges:
    """Return what changed since a run started.

    A raised item budget affects only the items that the old one ended.
    """
    changes = compare(Fingerprint.from_json(_fingerprint(run)), now)
    before = run.spec.get("item_budget")  # older runs do not record it
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
    """Return the job's name if no run has it, else with the first free number."""
    safe = safe_name(job.name)
    taken = {run.name for run in journal.runs()}
    number = 1
    while (name := safe if number == 1 else f"{safe}-{number}") in taken:
        number += 1
    return name


def _carry_over(run: Run, old: Run, items: tuple[Item, ...], changes: JobChanges) -> Run:
    """Record in a new run the results of an earlier one that the changes do not affect."""
    stale, indices = changes.stale(items), {item.key: item.index for item in items}
    with RunSession(run, keep="results") as session:
        for key, row in old.results():
            if key in indices and key not in stale:
                # With the new index: the item may have moved in the input.
                session.result(key, {**row, "index": indices[key], CARRIED: True})
        session.flush()
    return run


def _changed_message(job: Job, run: Run, changes: JobChanges, *, named: bool) -> str:
    lines = "\n".join(f"  - {sentence}" for sentence in changes.sentences())
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


def journal_of(path: Path | str | None) -> Journal:
    """Open the journal at a path, or the one of the working folder."""
    return Journal() if path is None else Journal(path)
