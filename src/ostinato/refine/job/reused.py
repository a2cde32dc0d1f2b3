"""What a new run of a job takes over from earlier ones. Knows results and hashes, no model."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from ostinato.checks import TIME_LIMIT, BaseCheck, judge_all
from ostinato.journal import Journal, Run, RunSession
from ostinato.loop import Verdict, judged
from ostinato.refine.job.changes import JobChanges, is_item_budget
from ostinato.refine.job.checks import prepare
from ostinato.refine.job.earlier_runs import EarlierRuns
from ostinato.refine.job.item_index import ItemFacts, ItemIndex
from ostinato.refine.job.job_items import JobItems, pages
from ostinato.refine.job.only import SPEC_KEY, Only, base_of, works_again, works_on

Row = Mapping[str, Any]

CARRIED = "carried"
"""Marks a result that was taken over from an earlier run."""

FROM = "carried_from"
"""The name of the run that a result was taken over from."""

TAKING_OVER = "taking_over"
"""The entry of a run's spec that is true until it has the results that it takes over."""

JUDGING_ANEW = "judging_anew"
"""The entry of a run's spec that is true where accepted replies are judged by changed checks."""


class ReusedResults:
    """Which results of earlier runs stay in a new one: two bytes for an item.

    They are those that would come out the same; where only checks have changed, also accepted
    replies that pass these (`find` with `anew`). `count` are those that may stay.
    """

    def __init__(self, items: JobItems, checks: Sequence[BaseCheck]) -> None:
        self.items, self.checks = items, checks
        self.count = self.to_judge = 0
        self._runs: list[Run] = []
        self._judging: list[Collection[str] | None] = []  # by run: the checks that have changed
        self._from = array("H")  # by position: the number of the run in `_runs`, from 1

    @property
    def index(self) -> ItemIndex:
        """The index of the items of the new run."""
        return self.items.index

    def find(self, earlier: EarlierRuns, *, anew: bool = False) -> None:
        """Look through the runs, the newest first.

        Runs of other outputs count: a reply does not depend on where it is written.
        """
        for run in earlier:
            before = earlier.before(run).items
            if before is None:
                continue
            # Changed sections affect every item, a raised budget perhaps not.
            if all(map(is_item_budget, earlier.settings(run))):
                changes = earlier.changes(run)
                if not changes.settings:
                    self._take(run, before, partial(_comes_out_the_same, run, changes))
            elif anew and (names := earlier.changed_checks(run)) is not None:
                self._take(run, before, partial(_is_accepted, run), names)

    def keep(self, run: Run, before: ItemIndex | None, only: Only) -> None:
        """Take all results of unchanged items, except those that are worked on again."""
        if before is not None:
            self._take(run, before, lambda row: not works_again(row, only))

    def complete(self, journal: Journal, run: Run, earlier: EarlierRuns) -> None:
        """Take over what a process that was killed while it made a run had not yet taken over."""
        if not run.spec.get(TAKING_OVER):
            return
        rest = ReusedResults(self.items, self.checks)
        if (only := works_on(run)) is None:
            rest.find(earlier, anew=bool(run.spec.get(JUDGING_ANEW)))
        elif (base := base_of(journal, run)) is not None:
            rest.keep(base, earlier.before(base).items, only)
        rest.carry_over(journal, run)

    def _take(
        self,
        run: Run,
        before: ItemIndex,
        keeps: Callable[[Row], bool],
        judging: Collection[str] | None = None,
    ) -> None:
        if not self._from:
            self._from = array("H", bytes(2 * len(self.index)))
        self._runs.append(run)
        self._judging.append(judging)
        for page in pages(self.index.unchanged_since(before)):
            wanted = [pair for pair in page if not self._from[pair[0]]]
            rows = run.results_of([key for _, key in wanted])
            for number, key in wanted:
                if key in rows and keeps(rows[key]):
                    self._from[number] = len(self._runs)
                    self.count += 1
                    self.to_judge += judging is not None

    def carry_over(self, journal: Journal, run: Run) -> None:
        """Record the results in a new run, and that it has them all."""
        stayed = 0
        with RunSession(run, keep="results") as session:
            for page in self.pages(without=run):
                for key, row in page.items():
                    session.result(key, row)
                    stayed += 1
                session.flush()
        self.count = stayed
        journal.amend(run, {TAKING_OVER: False})

    def pages(self, without: Run | None = None) -> Iterator[dict[str, Row]]:
        """Yield the rows that stay, by key; not those that the run `without` has already.

        A reply that changed checks must judge stays where it passes them.
        """
        if not self.count:
            return
        if self.to_judge:
            prepare(self.checks)
        for page in pages(self._with_columns()):
            facts = {known.key: (known, columns) for known, columns in page}
            there = set() if without is None else without.results_of(list(facts)).keys()
            found: dict[str, Row] = {}
            sources = zip(self._runs, self._judging, strict=True)
            for number, (other, judging) in enumerate(sources, 1):
                keys = [
                    key
                    for key, (known, _) in facts.items()
                    if key not in there and self._from[known.number] == number
                ]
                for key, row in other.results_of(keys).items() if keys else ():
                    known, columns = facts[key]
                    judged = row if judging is None else self._judged(row, judging, columns)
                    if judged is not None:
                        # With the new index: the item may have moved in the input.
                        kept = {"index": known.number, CARRIED: True, FROM: other.name}
                        found[key] = {**judged, **kept}
            yield found

    def _with_columns(self) -> Iterator[tuple[ItemFacts, Mapping[str, object]]]:
        if not self.to_judge:  # the input need not be read again
            return ((facts, {}) for facts in self.index.facts())
        return ((facts, item.columns) for item, facts in self.items.with_facts())

    def _judged(
        self, row: Row, changed: Collection[str], columns: Mapping[str, object]
    ) -> Row | None:
        """Return a row with the verdicts of the checks of now; None where one does not pass."""
        before = {verdict["check"]: Verdict.from_json(verdict) for verdict in row["verdicts"]}
        anew = [each for each in self.checks if each.name in changed or each.name not in before]
        verdicts = before | {
            verdict.check: verdict
            for verdict in judge_all(anew, row["output"], columns, TIME_LIMIT)
        }
        now = tuple(verdicts[check.name] for check in self.checks)
        if not all(verdict.passed for verdict in now):
            return None
        stopped = judged(now).to_json() if now else row["stopped"]
        told = {"verdicts": [verdict.to_json() for verdict in now], "judged_anew": True}
        return {**row, **told, "stopped": stopped}


def _is_accepted(run: Run, row: Row) -> bool:
    return bool(row["accepted"]) and not (SPEC_KEY in run.spec and row.get(CARRIED))


def _comes_out_the_same(run: Run, changes: JobChanges, row: Row) -> bool:
    # What a run of `--only` took over may come from another seed, strategy or model.
    return changes.keeps(row) and not (SPEC_KEY in run.spec and row.get(CARRIED))
