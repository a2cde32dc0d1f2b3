"""What lanes of an external source have received, replayed from the journal on resume.

Knows the records of a run; no process and no loop.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping

from ostinato.journal import Fields, Run, with_tensors
from ostinato.loop.process import Report

Recorded = Mapping[str, tuple[int, Report]]
"""The lanes that moved in one tick: the position of each after it, and its report."""


class Replay:
    """The recorded ticks that are still to be replayed; false when there are none.

    Where a clock, a check or a strategy decides otherwise than it did then, a lane is not at its
    recorded position: its own replay ends there, and the others continue.
    """

    def __init__(self, ticks: Iterable[Recorded] = ()) -> None:
        self._ticks = deque(ticks)
        self._left: set[str] = set()

    def __bool__(self) -> bool:
        return bool(self._ticks)

    def take(self, positions: Mapping[str, int]) -> tuple[dict[str, Report], list[Report]]:
        """Return the reports of the next recorded tick; `positions` are those of the lanes now.

        The second list has the reports of lanes that are at other positions: nobody can use them.
        """
        reports: dict[str, Report] = {}
        unused: list[Report] = []
        for key, (position, report) in self._ticks.popleft().items():
            if key not in self._left and positions.get(key) == position - 1:
                reports[key] = report
            else:
                self._left.add(key)
                unused.append(report)
        return reports, unused


def recorded(run: Run, after: int) -> Iterator[Recorded]:
    """Yield what a run's lanes received in each tick after `after`, up to the first gap."""
    for number, step in enumerate(run.steps(after), after + 1):
        if step.tick != number:
            return
        lanes = Fields(step.report).mapping("lanes")
        yield {
            key: (Fields(lane).integer("position"), with_tensors(lane["report"]))
            for key, lane in lanes.items()
        }
