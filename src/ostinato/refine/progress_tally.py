"""The numbers of the progress of a `Refine` or a job, and how much is left. Shows nothing."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, field
from typing import Protocol

from ostinato.loop import LaneResult, Report, Step
from ostinato.refine.report.html import duration
from ostinato.refine.results import READY

RECENT = 10.0
"""Seconds over which the pace of items is measured."""

ENOUGH = 3
"""How many items must be done before the remaining time is estimated."""


class ProgressDisplay(Protocol):
    """Something that shows the progress of a job."""

    def loading(self) -> None:
        """Say that the model is being loaded, which takes the first seconds."""
        ...

    def step(self, step: Step) -> None:
        """Record a step, and show it if it is time."""
        ...

    def __enter__(self) -> object: ...

    def __exit__(self, *raised: object) -> None: ...


class QuietProgress:
    """Shows nothing; the base of the others."""

    def loading(self) -> None:
        """Show nothing."""

    def step(self, step: Step) -> None:
        """Show nothing."""

    def __enter__(self) -> QuietProgress:
        return self

    def __exit__(self, *raised: object) -> None:
        return None


@dataclass
class ProgressTally:
    """The numbers of the progress. `items` is their total; times are monotonic seconds.

    `tokens` are those that finished items have computed, as in the report; `in_work` has those of
    the others in this session, by key. `again` are the keys of counted items that a resumed run
    finishes again, those after its last checkpoint.
    """

    items: int
    accepted: int = 0
    revised: int = 0
    given_up: int = 0
    tokens: int = 0
    in_work: dict[str, int] = field(default_factory=dict)
    began: float = field(default_factory=time.monotonic)
    before: int = 0  # items that cost no time in this session: done earlier, or by rules and cases
    earlier: int = 0  # items that were done before this session
    again: set[str] = field(default_factory=set)
    pace: deque[tuple[float, int]] = field(default_factory=lambda: deque([(0.0, 0)]))

    @property
    def done(self) -> int:
        """How many items are accepted or given up."""
        return self.accepted + self.given_up

    def add(self, result: LaneResult) -> None:
        """Count a finished item."""
        self.in_work.pop(result.key, None)
        self.tokens += int(result.spent.get("computed", 0))
        self.before += result.stopped.condition == READY
        if result.accepted:
            self.accepted += 1
            self.revised += result.rounds != 1 or bool(result.backtracks)
        else:
            self.given_up += 1

    def add_step(self, step: Step) -> None:
        """Count the tokens and the results of a step."""
        for key, lane in step.lanes.items():
            self.in_work[key] = self.in_work.get(key, 0) + computed_in(lane.report)
        for result in step.results:
            if result.key in self.again:
                self.again.discard(result.key)
                self.in_work.pop(result.key, None)
            else:
                self.add(result)

    def start(self, now: float) -> None:
        """Begin to count the time: the model has been loaded."""
        self.began = now
        self.pace = deque([(now, self.done)])

    def rate(self, now: float) -> float:
        """Return the items done per second, lately; call it each time the numbers are shown."""
        self.pace.append((now, self.done))
        while len(self.pace) > 2 and now - self.pace[1][0] > RECENT:
            self.pace.popleft()
        then, done = self.pace[0]
        return (self.done - done) / (now - then) if now > then else 0.0

    def left(self, now: float) -> float | None:
        """Return the seconds that are left at the pace of this session; None while unknown."""
        # Items that a rule or past case answered take no time and would make the rest look short.
        here = self.done - self.before
        if self.done >= self.items:
            return None
        if not self.in_work and here < ENOUGH <= self.done - self.earlier:  # answered by rules
            return (now - self.began) * (self.items - self.done) / (self.done - self.earlier)
        if here < ENOUGH:
            return None
        # In made-up jobs (30 to 200 items of log-normal lengths, 16 slots) an item in work counts
        # best as a third, and the last one takes half the time of an item longer. After a tenth of
        # the items the estimate is off by a factor of 1.4 on average; without this, by 1.8.
        lanes = len(self.in_work)
        pace = (now - self.began) / (here + lanes / 3)
        rest = max(0.5, self.items - self.done - lanes / 3)
        return pace * (rest + (lanes + 1) / 2)

    def line(self, now: float) -> str:
        """Return the numbers on one line."""
        parts = [
            f"{self.done} of {self.items} done",
            f"{self.accepted} accepted ({self.revised} revised)",
            f"{self.given_up} given up",
            f"{self.tokens + sum(self.in_work.values()):,} tokens computed",
        ]
        rate, left = self.rate(now), self.left(now)
        if rate >= 1:
            parts.append(f"{rate:,.0f} items/s")
        if left is not None:
            parts.append(f"about {_rough(left)} left")
        return ", ".join(parts)


def _rough(seconds: float) -> str:
    """Return an estimated time, no finer than it can be known."""
    grain = 5 if seconds < 60 else 30 if seconds < 600 else 300
    return duration(max(grain, round(seconds / grain) * grain)).removesuffix(" 0 s")


def computed_in(report: Report) -> int:
    """Return the tokens that a lane's step has run through the network."""
    value = report.get("computed")
    return int(value) if isinstance(value, int | float) else 0
