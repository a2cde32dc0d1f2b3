"""What can be looped: the two protocols of processes, and what they are given."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from ostinato.journal import StopKind
from ostinato.loop.timeline import Edits, Timeline

Report = Mapping[str, object]
"""What a step shows: names to numbers, text, token ids or small tensors. The key `ended` holds
the sentence of a natural end. A lane's `out_of_room` names the limit that cut its draft, its
`failed` says why the draft cannot continue, its `error` why nothing can be done with its item. A
report never changes after it was returned."""


@runtime_checkable
class Process(Protocol):
    """Something that can be stepped: holds its whole state, knows nothing of when to stop."""

    def step(self) -> Report:
        """Take one step and report what it did."""
        ...

    def state_dict(self) -> dict[str, object]:
        """Return all that a later step depends on: tensors, and values that JSON can hold."""
        ...

    def load_state_dict(self, state: dict[str, object]) -> None:
        """Restore exactly the state that `state_dict` returned."""
        ...

    def change(self, edits: Edits) -> None:
        """Apply edits from the next step on. Raises `EditError` for an unknown name.

        A process with an attribute `known_edits` (the type of the values by name: "number",
        "integer", "text", "list", "object" or "any") has wrong ones refused when a branch is made.
        """
        ...


@dataclass(frozen=True, slots=True)
class Lane:
    """One of many things that a process advances side by side. A value: it never changes.

    `past` holds the reports of the draft so far. Where there is a past, a lane process brings
    the lane to the end of it before the next step, and does not report it again.
    `edits` are the lane's edits by position, those of later positions included.
    `again` is true where the lane went back to its position, so that the next step from there has
    been computed, and counted, before.
    """

    key: str
    seed: int = 0
    round: int = 0
    backtracks: int = 0
    edits: Timeline = field(default_factory=Timeline)
    past: tuple[Report, ...] = ()
    again: bool = False


class LaneProcess(Protocol):
    """A process that advances many lanes side by side, each by at most one position a step.

    `slots` is how many lanes it advances at once. `deterministic` says whether the same seed gives
    the same bits. A process whose bits depend on how it computes (compiled, device) has a
    text `compute_mode`: a run records it and is resumed in no other. Where the process chose the
    mode itself, it has a method `use_compute_mode(mode)`, which a resumed run calls first. Both
    hold for the judge of `Lanes` too.

    What the values of its reports mean is the process's own to say. `costs`, where it has them, are
    the names that add up over an item and that going back does not reduce; `unit` is the name that
    adds up to the length of a draft, which else is its number of reports.
    """

    slots: int
    deterministic: bool

    def start(self, lane: Lane, item: object) -> None:
        """Give a slot to a lane, at position `len(lane.past)`.

        Raises `ItemError` where nothing can be done with the item, `EditError` for an unknown edit.
        """
        ...

    def step(self) -> Mapping[str, Report]:
        """Advance every lane by at most one position; return the reports of those that moved."""
        ...

    def rewind(self, lane: Lane, to: int) -> None:
        """Bring a lane back to position `to`; to its own position means new edits only.

        `lane.past` is not read: the process knows its own past up to `to`.
        """
        ...

    def output(self, key: str) -> object:
        """Return the lane's output so far (for text an `ostinato.loop.Text`)."""
        ...

    def drop(self, key: str) -> None:
        """Free the lane's slot."""
        ...


class ExternalSource:
    """Base of a lane process whose reports come from outside, as from a server.

    Such reports cannot be computed again. They are plain JSON and hold all that is needed to bring
    a lane back. So a run commits each tick before the next request goes out, and a resumed run
    takes what it has received from its journal.
    """

    deterministic: bool = False


class SparseMetrics(ABC):
    """Base of a process that has some names in few of its reports, as a training its validation."""

    @property
    @abstractmethod
    def report_interval(self) -> int:
        """Steps by which each name has come at least once.

        A condition that still waits for a name then is warned about.
        """


class Exhausted(Exception):
    """Raised by a process's `step` that could not take one. No tick passes.

    `kind` is that of the stop: the process had ended before, or its budget allows no step.
    """

    def __init__(self, sentence: str, kind: StopKind = StopKind.ENDED) -> None:
        super().__init__(sentence)
        self.kind = kind
