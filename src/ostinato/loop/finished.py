"""Finished items of lanes: their results until they are taken, counted, or adopted from a journal.

Knows no process and no lane.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ostinato.errors import ItemError
from ostinato.journal import StopKind, Stopped
from ostinato.loop.lane_result import LaneResult

Known = Callable[[str], Mapping[str, object] | None]
"""Returns the journaled row of a key; None where there is none."""


class FinishedItems:
    """The results that wait to be taken, and how many there were of each outcome."""

    def __init__(self) -> None:
        self.results: list[LaneResult] = []
        self.counts = {"accepted": 0, "given_up": 0, "errors": 0}
        self.known: Known = lambda key: None  # rows that are in the journal already

    def add(self, result: LaneResult) -> None:
        """Keep a result until it is taken."""
        self._count(result)
        self.results.append(result)

    def refuse(self, key: str, index: int, error: ItemError) -> None:
        """Keep the result of an item that nothing can be done with."""
        stopped = refusal(error)
        self.add(LaneResult(key=key, index=index, output="", accepted=False, stopped=stopped))

    def take(self) -> list[LaneResult]:
        """Return the results since the last call."""
        taken, self.results = self.results, []
        return taken

    def adopt(self, key: str) -> bool:
        """Count a journaled result that computing again could not reproduce, if there is one.

        A clock cut it short, or it was carried over from another run.
        """
        row = self.known(key)
        if not row or not (row.get("carried") or row.get("by_clock")):
            return False
        self._count(LaneResult.from_json(row))
        return True

    def load(self, counts: dict[str, int]) -> None:
        """Restore saved counts; no result waits."""
        self.results.clear()
        self.counts = counts

    def _count(self, result: LaneResult) -> None:
        name = "accepted" if result.accepted else "given_up"
        self.counts["errors" if result.stopped.kind is StopKind.ERROR else name] += 1


def refusal(error: ItemError) -> Stopped:
    """Return the stop of an item that nothing can be done with."""
    return Stopped(StopKind.ERROR, str(error), type(error).__name__)


def items_done(count: int) -> str:
    """Return the sentence of a run whose items are all done."""
    return "The item is done." if count == 1 else f"All {count} items are done."
