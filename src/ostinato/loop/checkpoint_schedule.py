"""The regular checkpoints of a loop: when they are due, and which one a going back finds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ostinato.errors import InputError

FOREVER = 1 << 62


@dataclass(frozen=True, slots=True)
class CheckpointSchedule:
    """How often a checkpoint is written: every so many steps; the last `keep` are kept."""

    steps: int = 100
    keep: int = 3

    def __post_init__(self) -> None:
        if self.steps < 1 or self.keep < 1:
            raise InputError(
                f"CheckpointSchedule(steps, keep) must both be at least 1, got {self}."
            )


@dataclass(frozen=True, slots=True)
class SavePoint:
    """A regular checkpoint that going back may aim at; its state is in memory or in the run."""

    tick: int
    position: int
    attempts: int = 0  # how many there were before it
    state: dict[str, object] | None = None


class SavePoints:
    """The last regular checkpoints of a loop, oldest first."""

    def __init__(self, every: CheckpointSchedule | None) -> None:
        self.every = every
        self._marks: list[SavePoint] = []

    def due(self, tick: int) -> bool:
        """Tell whether a regular checkpoint belongs to a tick."""
        return self.every is not None and tick % self.every.steps == 0

    def next(self, tick: int) -> int:
        """Return the tick of the next regular checkpoint."""
        return FOREVER if self.every is None else (tick // self.every.steps + 1) * self.every.steps

    @property
    def attempts(self) -> int:
        """How many attempts there were before the last checkpoint."""
        return self._marks[-1].attempts if self._marks else 0

    @property
    def ticks(self) -> list[int]:
        """The ticks of the checkpoints that must be kept."""
        return [mark.tick for mark in self._marks]

    def remember(self, mark: SavePoint) -> None:
        """Add the newest, and forget those beyond `keep`."""
        assert self.every is not None
        self._marks.append(mark)
        del self._marks[: -self.every.keep]

    def at_most(self, position: int) -> SavePoint | None:
        """Return the last one that is not past a position; those past it are forgotten."""
        while self._marks and self._marks[-1].position > position:
            self._marks.pop()
        return self._marks[-1] if self._marks else None

    def clear(self) -> None:
        """Forget all."""
        self._marks.clear()

    def to_json(self) -> list[list[int]]:
        """Return their places: states are not among them."""
        return [[mark.tick, mark.position, mark.attempts] for mark in self._marks]

    def load(self, places: Sequence[tuple[int, int, int]], there: set[int]) -> None:
        """Go to saved places, as far as their checkpoints are there (a branch has but one)."""
        self._marks = [SavePoint(*place) for place in places if place[0] in there]
