"""What can be looped: the two protocols of processes, and the values they exchange."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from ostinato.journal import StopKind

Report = Mapping[str, object]
"""What a step lets you see: names to numbers, text, token ids or small tensors. The key
`ended` holds the sentence of a natural end; a lane's `failed` says why its draft cannot be gone on
with, its `error` why its item cannot be worked on. It is not changed after it was returned."""

Edits = Mapping[str, object]
"""Named changes to a process; a process refuses a name that it does not know."""


@runtime_checkable
class Process(Protocol):
    """Something that can be stepped: holds its whole state, knows nothing of when to stop."""

    def step(self) -> Report:
        """Take one step and tell what can be seen of it."""
        ...

    def state_dict(self) -> dict[str, object]:
        """Return all that a later step depends on: tensors, and values that JSON can hold."""
        ...

    def load_state_dict(self, state: dict[str, object]) -> None:
        """Go to exactly the state that `state_dict` returned."""
        ...

    def change(self, edits: Edits) -> None:
        """Apply edits from the next step on. Raises `EditError` for an unknown name."""
        ...


@dataclass(frozen=True, slots=True)
class Lane:
    """One of many things that a process advances side by side. A value: it never changes.

    `past` holds the reports of the draft up to where the lane is to stand: a lane process that
    starts a lane with a past brings it there before its next step, without reporting it again.
    `edits` holds the edits in force with the position of each, by position, and oldest first where
    that is one. `again` tells that the lane had been stepped from where it is to stand, before it
    went back there.
    """

    key: str
    seed: int = 0
    round: int = 0
    backtracks: int = 0
    edits: tuple[tuple[int, Edits], ...] = ()
    past: tuple[Report, ...] = ()
    again: bool = False


class LaneProcess(Protocol):
    """A process that advances many lanes side by side, each by at most one position a step.

    `slots` is the number of places; `deterministic` tells whether the same seed gives the same bits.
    One may have a `compute_mode`, a text that says how it computes, where that changes the bits: a
    run records it and is not resumed in another.
    """

    slots: int
    deterministic: bool

    def start(self, lane: Lane, item: object) -> None:
        """Give a slot to a lane, at position `len(lane.past)`.

        Raises `ItemError` where the item cannot be worked on, `EditError` for an unknown edit.
        """
        ...

    def step(self) -> Mapping[str, Report]:
        """Advance every lane by at most one position; return the reports of those that moved."""
        ...

    def rewind(self, lane: Lane, to: int) -> None:
        """Bring a lane back to position `to`; at its own position this is a live edit.

        `lane.past` is not read: the process knows its own past up to `to`.
        """
        ...

    def output(self, key: str) -> object:
        """Return what the lane has made so far (for text an `ostinato.loop.Text`)."""
        ...

    def drop(self, key: str) -> None:
        """Free the lane's slot."""
        ...


class ExternalSource:
    """Base of a lane process whose reports come from outside, as from a server.

    They cannot be made again, are plain JSON and hold all that a lane is brought back from. So a
    run of such a process is journaled step by step, each tick before the next one, and a run that
    goes on takes what was recorded from its journal instead of asking for it again.
    """

    deterministic: bool = False


class SparseMetrics(ABC):
    """Base of a process that has some names in few of its reports, as a training its validation.

    `report_interval` is after how many steps each name has come: one that a condition waits for and
    that has not come by then is told of in a warning.
    """

    @property
    @abstractmethod
    def report_interval(self) -> int:
        """After how many steps each name has come."""


class Step:
    """One step as a loop's user and a condition see it.

    `tick` is the number of steps taken by the loop, or in a lane's own conditions its position;
    `position` is where the process or lane stands after the step. `item` is the lane's item, and
    `results` the items that were finished in this step, as (key, row).
    """

    __slots__ = ("_output", "item", "position", "report", "results", "tick")

    results: Sequence[tuple[str, Mapping[str, object]]]

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


@dataclass(slots=True)  # not frozen: one is made for each lane and tick, and frozen costs thrice
class LaneStep:
    """What one tick did to one lane: its report, and the stop and answer where it came to one."""

    position: int
    report: Report
    stopped: object = None  # Stopped | None
    answer: object = None  # Action | None

    def to_json(self) -> dict[str, object]:
        """Return what the journal keeps of it; the values in it are encoded there."""
        return {
            "position": self.position,
            "report": self.report,
            "stopped": self.stopped,
            "answer": self.answer,
        }


class Exhausted(Exception):
    """Raised by a process's `step` that could not take one. No tick passes.

    `kind` is that of the stop: it had ended before, or its budget allows no further step.
    """

    def __init__(self, sentence: str, kind: StopKind = StopKind.ENDED) -> None:
        super().__init__(sentence)
        self.kind = kind
