"""One run of a job: its record in the journal, its loop, its output and its report.

Everything is checked before the model is loaded. Knows no driver: `Refine` builds the loop.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import cache, reduce
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ostinato.errors import ItemError
from ostinato.journal import JSON, Run, RunSession, StopKind, Stopped
from ostinato.loop import Budget, Condition, LaneResult, Lanes, Loop, Policy, Seconds, items_done
from ostinato.output_files import write_whole
from ostinato.refine.drafts import Judges, end_of_draft, loop_of, ready_texts
from ostinato.refine.export import Exported, write_export
from ostinato.refine.job.checks import prepare
from ostinato.refine.job.config import Job
from ostinato.refine.job.item_index import ItemFacts, ItemIndex
from ostinato.refine.job.items import Item
from ostinato.refine.job.job_items import JobItems, pages
from ostinato.refine.job.output_claim import OutputClaim
from ostinato.refine.lanes_later import LanesLater
from ostinato.refine.progress import PassProgress
from ostinato.refine.report.html import Outcome, ReportTally, report_page
from ostinato.refine.results import READY, Result, from_lane, write_results
from ostinato.refine.routing.router import Route, Router, RouteSource

if TYPE_CHECKING:
    from ostinato.models import LanguageModel
    from ostinato.refine.refine import Refine
    from ostinato.remote import Server


@dataclass(frozen=True, kw_only=True)
class JobRun:
    """A job with its items and its run in the journal. `open_job` makes one.

    `reused` is the number of results that a new run has taken over from earlier ones.
    """

    job: Job
    items: JobItems
    router: Router
    run: Run
    output_claim: OutputClaim
    reused: int = 0

    @property
    def whole(self) -> bool:
        """Whether the items are the whole input."""
        return self.items.whole

    @property
    def needs_model(self) -> bool:
        """Whether the model is loaded before the first item: not where all answers are ready."""
        return self.job.server is not None or not self.items.index.all_ready

    @property
    def stopped(self) -> Stopped | None:
        """Why the run stopped; None if it can be resumed."""
        return self.run.stopped if self.run.status == "stopped" else None

    @property
    def finished(self) -> bool:
        """Whether every item has a result."""
        return has_all(self.run, self.items.index)

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
        """Load the model, if an item needs it, and return the loop, which resumes the run.

        `say` gets a line about a big model, and why a server is waited for. Raises `ModelError` for
        a model that does not fit.
        """
        job, until = self.job, job_budget(self.job)
        if model is None and not self.needs_model:
            lanes = self._lanes_without_model(say)
        else:
            lanes = refinement(job, self.items, self.router, model, say=say).lanes
        return loop_of(lanes, until=until, run=self.run, keep=job.keep)

    def _lanes_without_model(self, say: Callable[[str], None]) -> Lanes:
        """Return lanes that load the model when a ready answer does not pass the checks."""
        job, budgets = self.job, self.job.budgets
        prepare(job.checks)

        @cache
        def refine() -> Refine:
            say("Loading the model: a ready answer does not pass the checks.")
            return refinement(job, self.items, self.router, say=say)

        return Lanes(
            LanesLater(lambda: refine().lanes.process),
            self.items.pairs(),
            Policy(
                each=end_of_draft(
                    job.strategy,
                    job.checks,
                    max_new_tokens=job.max_new_tokens,
                    tokens=budgets.item_tokens,
                    seconds=budgets.item_seconds,
                ),
                judge=Judges(job.checks),
                on_stop=lambda stopped, history: refine().policy.on_stop(stopped, history),
                ready=ready_texts(self.router.ready),
            ),
            seed=job.seed,
        )

    def settle(self) -> None:
        """Record that the run has ended, if it was killed between its last result and that record.

        A branch of a finished run has never been driven, nor has a run that has taken over every
        reply; they are settled, too.
        """
        row = self.run.now()
        if row.status in ("new", "paused", "interrupted") and self.finished:
            ended = Stopped(StopKind.ENDED, items_done(len(self.items)), "ended")
            with RunSession(self.run, keep="results") as session:
                session.finish("stopped", ended, row.tick, row.position)

    def results(self) -> Iterator[Result]:
        """Yield the results in the journal, in the order of the items."""
        return (result for result, _ in self.results_with_items())

    def results_with_items(self) -> Iterator[tuple[Result, Item]]:
        """Yield each result with its item; memory holds a page of them."""
        for page in pages(self.items.with_facts()):
            rows = self.run.results_of([item.key for item, _ in page])
            for item, facts in page:
                if item.key in rows:
                    result = LaneResult.from_json(rows[item.key])
                    route = self._route(item, facts, result.stopped)
                    yield from_lane(result, route, item.columns), item

    def _route(self, item: Item, facts: ItemFacts, stopped: Stopped) -> Route | None:
        """Return what a result needs of how its item was routed; None for an error."""
        if stopped.kind is StopKind.ERROR:
            return None
        source = RouteSource(facts.source)
        if source is RouteSource.MODEL or stopped.condition == READY:
            return Route((), source=source, rule=facts.rule)
        try:  # an answer that did not pass
            return self.router.route(item.columns)
        except ItemError:  # an older version did not refuse the item
            return None

    def export(self, paths: Iterable[Path]) -> list[tuple[Path, Exported]]:
        """Write the results in the journal to each file; return what is in each."""
        details = self.job.details
        return [
            (
                path,
                write_export(
                    path, self.results(), (item.columns for item in self.items), details=details
                ),
            )
            for path in paths
        ]

    def write(
        self, stopped: Stopped | None, *, say: Callable[[str], None] = lambda line: None
    ) -> Outcome:
        """Write the output and the report from the journal; return what came out.

        They are left as they are where they were written from the same results. An output with more
        replies is replaced only by that of the whole, finished job. `say` gets lines about the
        progress where there are very many.
        """
        count = count_results(self.run, self.items.index)
        files = (self.job.output, self.job.report)
        source: dict[str, JSON] = {
            "run": self.run.id,
            "results": count,
            "items": [self.items.index.path.name, len(self.items)],
            "stopped": None if stopped is None else stopped.to_json(),
            "details": self.job.details,
        }
        if (value := self.output_claim.written(source, files)) is not None:
            return Outcome.from_json(self.job, value, stopped)
        done = self.whole and count == len(self.items)
        held = 0 if done else OutputClaim.replies(self.job.output)
        outcome = self._written(stopped, held if held > count else 0, say)
        if not outcome.kept:
            self.output_claim.record_written(source, files, outcome.to_json())
        return outcome

    def _written(self, stopped: Stopped | None, kept: int, say: Callable[[str], None]) -> Outcome:
        """Read the results once: for the report, and for the output unless an older one is kept."""
        tally = ReportTally(self.job, self.router)
        # From the journal, not from this session: an earlier one may have finished items.
        writing = PassProgress(f"Writing {self.job.output.name}", say)
        results = writing.over(self._tallied(tally))
        if kept:
            deque(results, maxlen=0)
        else:
            write_results(self.job.output, results, details=self.job.details)
        outcome = self._outcome(tally, stopped, kept)
        if not kept:
            write_whole(self.job.report, [report_page(outcome, tally)])
        return outcome

    def report(self) -> str:
        """Return the report page of the results in the journal."""
        tally = ReportTally(self.job, self.router)
        deque(self._tallied(tally), maxlen=0)
        return report_page(self._outcome(tally, self.run.stopped), tally)

    def _outcome(self, tally: ReportTally, stopped: Stopped | None, kept: int = 0) -> Outcome:
        return Outcome(
            job=self.job,
            summary=tally.summary.summary(len(self.items)),
            stopped=stopped,
            seconds=self.output_claim.seconds(self.run.id),
            when=datetime.now(UTC).strftime("%d %B %Y, %H:%M UTC"),
            kept=kept,
            errors=tuple(tally.errors),
            refused=tally.refused,
        )

    def _tallied(self, tally: ReportTally) -> Iterator[Result]:
        for result, item in self.results_with_items():
            tally.add(result, item.line)
            yield result


def count_results(run: Run, index: ItemIndex) -> int:
    """Return how many of the items have a result."""
    own = run.spec.get("fingerprint")
    made_of = own.get("index") if isinstance(own, dict) else None
    # A run of these very items has results of no others; one that covers them may have.
    if made_of == index.to_json() or run.count_results() == 0:
        return run.count_results()
    keys = (facts.key for facts in index.facts())
    return sum(run.count_results(page) for page in pages(keys, 1000))


def has_all(run: Run, index: ItemIndex) -> bool:
    """Return whether every item has a result."""
    return run.count_results() >= len(index) and count_results(run, index) == len(index)


def refinement(
    job: Job,
    items: JobItems | Sequence[Item],
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
        items.pairs()
        if isinstance(items, JobItems)
        else [(item.key, item.columns) for item in items],
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
