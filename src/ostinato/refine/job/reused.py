"""What a new run of a job takes over from earlier ones. Knows results and hashes, no model."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from ostinato.journal import Journal, Run, RunSession
from ostinato.refine.job.changes import JobChanges, is_item_budget
from ostinato.refine.job.earlier_runs import EarlierRuns
from ostinato.refine.job.item_index import ItemIndex
from ostinato.refine.job.job_items import pages
from ostinato.refine.job.only import SPEC_KEY, Only, base_of, works_again, works_on

Row = Mapping[str, Any]

CARRIED = "carried"
"""Marks a result that was taken over from an earlier run."""

TAKING_OVER = "taking_over"
"""The entry of a run's spec that is true until it has the results that it takes over."""


class ReusedResults:
    """Which results of earlier runs would come out the same: two bytes for an item."""

    def __init__(self, index: ItemIndex) -> None:
        self.index = index
        self.count = 0
        self._runs: list[Run] = []
        self._from = array("H")  # by position: the number of the run in `_runs`, from 1

    def find(self, earlier: EarlierRuns) -> None:
        """Look through the runs, the newest first.

        Runs of other outputs count: a reply does not depend on where it is written.
        """
        for run in earlier:
            before = earlier.before(run).items
            # Changed sections affect every item, a raised budget perhaps not.
            if before is None or not all(map(is_item_budget, earlier.settings(run))):
                continue
            changes = earlier.changes(run)
            if not changes.settings:
                self._take(run, before, partial(_comes_out_the_same, run, changes))

    def keep(self, run: Run, before: ItemIndex | None, only: Only) -> None:
        """Take all results of unchanged items, except those that are worked on again."""
        if before is not None:
            self._take(run, before, lambda row: not works_again(row, only))

    def complete(self, journal: Journal, run: Run, earlier: EarlierRuns) -> None:
        """Take over what a process that was killed while it made a run had not yet taken over."""
        if not run.spec.get(TAKING_OVER):
            return
        rest = ReusedResults(self.index)
        if (only := works_on(run)) is None:
            rest.find(earlier)
        elif (base := base_of(journal, run)) is not None:
            rest.keep(base, earlier.before(base).items, only)
        rest.carry_over(journal, run)

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

    def carry_over(self, journal: Journal, run: Run) -> None:
        """Record the results in a new run, and that it has them all."""
        with RunSession(run, keep="results") as session:
            for page in pages(self.index.facts()) if self.count else ():
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
        journal.amend(run, {TAKING_OVER: False})


def _comes_out_the_same(run: Run, changes: JobChanges, row: Row) -> bool:
    # What a run of `--only` took over may come from another seed, strategy or model.
    return changes.keeps(row) and not (SPEC_KEY in run.spec and row.get(CARRIED))
