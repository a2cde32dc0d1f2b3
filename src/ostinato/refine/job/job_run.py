"""One run of a job: its record in the journal, its loop, its output and its report.

Everything is checked before the model is loaded. Knows no driver: `Refine` builds the loop.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import reduce
from typing import TYPE_CHECKING, Any

from ostinato.errors import ItemError
from ostinato.journal import Run, RunSession, StopKind, Stopped
from ostinato.loop import Budget, Condition, Loop, Seconds, items_done
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


@dataclass(frozen=True, kw_only=True)
class JobRun:
    """A job with its items and its run in the journal. `open_job` makes one.

    `whole`: the items are the whole input. `reused` is the number of results that a new run has
    taken over from earlier ones.
    """

    job: Job
    items: tuple[Item, ...]
    router: Router
    run: Run
    output_claim: OutputClaim
    whole: bool = True
    reused: int = 0

    @property
    def stopped(self) -> Stopped | None:
        """Why the run stopped; None if it can be resumed."""
        return self.run.stopped if self.run.status == "stopped" else None

    @property
    def finished(self) -> bool:
        """Whether every item has a result."""
        keys = self.run.result_keys()
        return all(item.key in keys for item in self.items)

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

        `say` gets a line about a big model, and why a server is waited for. Raises `ModelError` for
        a model that does not fit.
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
            from_lane(item.key, rows[item.key], self._route(item, rows[item.key]), item.columns)
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
        """Write the output and the report from the journal; return what they were made of.

        An output with more replies is replaced only by that of the whole, finished job.
        """
        # From the journal, not from this session: an earlier one may have finished items.
        results = self.results()
        done = self.whole and len(results) == len(self.items)
        held = 0 if done else OutputClaim.replies(self.job.output)
        outcome = Outcome(
            job=self.job,
            router=self.router,
            items=self.items,
            results=results,
            stopped=stopped,
            seconds=self.output_claim.seconds(self.run.id),
            when=datetime.now(UTC).strftime("%d %B %Y, %H:%M UTC"),
            kept=held if held > len(results) else 0,
        )
        if not outcome.kept:
            write_results(self.job.output, results)
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
    about a big one, and why a server is waited for.

    `more` are arguments of `Refine`; they replace those of the job.
    """
    from ostinato.refine.refine import Refine
    from ostinato.remote import ServerLanes

    # First, as it is quick: a judge without a key must not wait for the model.
    prepare(job.checks)
    refine = Refine(
        _load_writer(job, say) if model is None else model,
        [(item.key, item.columns) for item in items],
        prompt=router.messages,
        checks=job.checks,
        **{**_refine_settings(job), "ready": router.ready, **more},
    )
    if isinstance(refine.decode, ServerLanes):
        refine.decode.client.say = say
    return refine


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
