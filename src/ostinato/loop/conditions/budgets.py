"""Conditions that limit what is spent: steps, epochs, seconds, tokens, cost."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from ostinato.arguments import counted, require_types
from ostinato.journal import StopKind, Stopped
from ostinato.loop.conditions.base import Condition, Observed, State, numbers, require, require_name
from ostinato.loop.step import Step


@dataclass(frozen=True)
class Steps(Condition):
    """Fires after `limit` steps: ticks of the loop, or positions of a lane."""

    limit: int

    def __post_init__(self) -> None:
        require_types(self, "Steps({})")
        require(self.limit >= 1, f"Steps(limit) must be at least 1, got {self.limit}.")

    def observe(self, state: State, step: Step) -> Observed:
        if step.tick < self.limit:
            return None, None
        limit = "the limit" if step.tick == self.limit else f"the limit is {self.limit}"
        sentence = f"It has taken {counted(step.tick, 'steps')}, {limit}."
        return None, Stopped(StopKind.BUDGET, sentence, str(self), {"steps": step.tick})

    def share(self, state: State, last: Step) -> float | None:
        return min(1.0, last.tick / self.limit)

    def reached(self, state: State, last: Step) -> Stopped | None:
        return self.observe(state, last)[1]


@dataclass(frozen=True)
class Epochs(Condition):
    """Fires when `epoch` in the report, the number of epochs completed, reaches `limit`."""

    limit: float

    def __post_init__(self) -> None:
        require_types(self, "Epochs({})")
        require(self.limit > 0, f"Epochs(limit) must be above 0, got {self.limit}.")

    def names(self) -> tuple[str, ...]:
        return ("epoch",)

    def observe(self, state: State, step: Step) -> Observed:
        epoch = max(numbers(step.report.get("epoch")), default=None)
        if epoch is None or epoch < self.limit:
            return None, None
        sentence = f"It has completed {counted(self.limit, 'epochs', 'g')}, the limit."
        return None, Stopped(StopKind.BUDGET, sentence, str(self), {"epoch": epoch})

    def share(self, state: State, last: Step) -> float | None:
        epoch = max(numbers(last.report.get("epoch")), default=None)
        return None if epoch is None else min(1.0, epoch / self.limit)

    def reached(self, state: State, last: Step) -> Stopped | None:
        return self.observe(state, last)[1]


@dataclass(frozen=True)
class Seconds(Condition):
    """Fires when `limit` seconds have been spent; pauses and time between runs do not count."""

    limit: float
    spends: ClassVar[bool] = True

    def __post_init__(self) -> None:
        require_types(self, "Seconds({})")
        require(self.limit > 0, f"Seconds(limit) must be above 0, got {self.limit}.")

    def initial_state(self) -> list[float]:
        return [0.0, time.monotonic()]

    def observe(self, state: list[float], step: Step) -> Observed:
        spent, last = state
        now = time.monotonic()
        spent += now - last
        return [spent, now], self._verdict(spent)

    def wake(self, state: list[float]) -> list[float]:
        # Another process has another monotonic clock, and a pause does not count.
        return [state[0], time.monotonic()]

    def exhausted(self, state: list[float]) -> Stopped | None:
        return self._verdict(state[0])

    def share(self, state: list[float], last: Step) -> float | None:
        return min(1.0, state[0] / self.limit)

    def by_clock(self, state: list[float]) -> bool:
        return self.exhausted(state) is not None

    def _verdict(self, spent: float) -> Stopped | None:
        if spent < self.limit:
            return None
        sentence = f"It has taken {spent:.1f} seconds; the limit is {self.limit:g}."
        return Stopped(StopKind.BUDGET, sentence, str(self), {"seconds": spent})


@dataclass(frozen=True)
class Budget(Condition):
    """Fires when the reports' `name` adds up to `limit` (tokens, cost), discarded work included."""

    name: str
    limit: float
    spends: ClassVar[bool] = True

    def __post_init__(self) -> None:
        require_name("Budget", self.name)
        require_types(self, "Budget({})")
        require(self.limit > 0, f"Budget(limit) must be above 0, got {self.limit}.")

    def initial_state(self) -> float:
        return 0

    def observe(self, state: float, step: Step) -> Observed:
        spent = state + sum(numbers(step.report.get(self.name)))
        return spent, self.exhausted(spent)

    def charge(self, state: float, spent: Mapping[str, float]) -> float:
        return state + spent.get(self.name, 0)

    def share(self, state: float, last: Step) -> float | None:
        return min(1.0, state / self.limit)

    def exhausted(self, state: float) -> Stopped | None:
        if state < self.limit:
            return None
        sentence = f"{state:g} {self.name} have been spent; the limit is {self.limit:g}."
        return Stopped(StopKind.BUDGET, sentence, str(self), {self.name: state})
