"""A step as a loop's user and the conditions see it, with what it did to each lane."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from ostinato.journal import Stopped
from ostinato.loop.actions import Action
from ostinato.loop.lane_result import LaneResult
from ostinato.loop.process import Report


class Step:
    """One step as a loop's user and a condition see it.

    `tick` is the number of steps taken by the loop, or in a lane's own conditions its position;
    `position` is that of the process or lane after the step. `item` is the lane's item, and
    `results` are those of the items that were finished in this step.
    """

    __slots__ = ("_output", "item", "position", "report", "results", "tick")

    results: Sequence[LaneResult]

    def __init__(
        self,
        tick: int,
        position: int,
        report: Report,
        output: Callable[[], object] | None = None,
        item: object = None,
    ) -> None:
        self.tick = tick
        self.position = position
        self.report = report
        self._output = output
        self.item = item
        self.results = ()

    @property
    def output(self) -> object:
        """What has been made so far: the lane's output, else the report's `output`."""
        return self.report.get("output") if self._output is None else self._output()

    @property
    def lanes(self) -> Mapping[str, LaneStep]:
        """The lanes that moved in this step, by key; empty for a process without lanes."""
        lanes = self.report.get("lanes")
        return lanes if isinstance(lanes, Mapping) else {}

    def __repr__(self) -> str:
        return f"Step(tick={self.tick}, position={self.position}, report={dict(self.report)!r})"


@dataclass(
    slots=True
)  # not frozen: one is made for each lane and tick, and frozen takes three times as long
class LaneStep:
    """What one tick did to one lane: its report, and where it stopped the stop and the action."""

    position: int
    report: Report
    stopped: Stopped | None = None
    action: Action | None = None

    def to_json(self) -> dict[str, object]:
        """Return what the journal keeps of it; the values in it are encoded there."""
        return {
            "position": self.position,
            "report": self.report,
            "stopped": self.stopped,
            "answer": self.action,
        }
