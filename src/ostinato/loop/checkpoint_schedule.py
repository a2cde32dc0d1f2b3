"""When a loop saves its state, and which saved state it returns to when it goes back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ostinato.arguments import require_at_least, require_types

FOREVER = 1 << 62  # a tick that no run reaches


@dataclass(frozen=True, slots=True)
class CheckpointSchedule:
    """Write a checkpoint every `steps` steps, and keep the last `keep` of them."""

    steps: int = 100
    keep: int = 3

    def __post_init__(self) -> None:
        require_types(self)
        require_at_least(1, steps=self.steps, keep=self.keep)


@dataclass(frozen=True, slots=True)
class SavePoint:
    """A checkpoint of the schedule, which going back may return to.

    Without a run its state is kept here, in memory. `attempts` is how many there were before it.
    """

    tick: int
    position: int
    attempts: int = 0
    state: dict[str, object] | None = None


class SavePoints:
    """The last checkpoints of the schedule, oldest first."""

    def __init__(self, schedule: CheckpointSchedule | None) -> None:
        self.schedule = schedule
        self._points: list[SavePoint] = []

    def is_scheduled(self, tick: int) -> bool:
        """Return whether the schedule has a checkpoint at a tick."""
        return self.schedule is not None and tick % self.schedule.steps == 0

    def next(self, tick: int) -> int:
        """Return the tick of the next checkpoint of the schedule."""
        return (
            FOREVER
            if self.schedule is None
            else (tick // self.schedule.steps + 1) * self.schedule.steps
        )

    @property
    def marks(self) -> tuple[tuple[int, int], ...]:
        """The position of each checkpoint, and how many attempts there were before it."""
        return tuple((point.position, point.attempts) for point in self._points)

    @property
    def ticks(self) -> list[int]:
        """The ticks of the checkpoints that must be kept."""
        return [point.tick for point in self._points]

    def remember(self, point: SavePoint, last_good: int | None = None) -> None:
        """Add the newest, and forget those beyond `keep`, but not the newest good one.

        `last_good` is the last position before a trouble that goes on now.
        """
        assert self.schedule is not None
        self._points.append(point)
        old, kept = self._points[: -self.schedule.keep], self._points[-self.schedule.keep :]
        if last_good is not None and kept[0].position > last_good:
            kept = [each for each in old if each.position <= last_good][-1:] + kept
        self._points = kept

    def at_most(self, position: int) -> SavePoint | None:
        """Return the last one that is not past a position; those past it are forgotten."""
        while self._points and self._points[-1].position > position:
            self._points.pop()
        return self._points[-1] if self._points else None

    def clear(self) -> None:
        """Forget all: the loop starts over."""
        self._points.clear()

    def to_json(self) -> list[list[int]]:
        """Return (tick, position, attempts) of each; their states are in the run."""
        return [[point.tick, point.position, point.attempts] for point in self._points]

    def load(self, saved: Sequence[tuple[int, int, int]], there: set[int]) -> None:
        """Restore those whose checkpoints are there: a branch has only one of its parent's."""
        self._points = [SavePoint(*each) for each in saved if each[0] in there]
