"""Conditions that limit what is spent: steps, epochs, seconds, tokens, cost."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, cast

from ostinato.arguments import require_types
from ostinato.journal import JSON, StopKind, Stopped
from ostinato.loop.conditions.base import Condition, Observed, number, require, require_name
from ostinato.loop.step import Step


@dataclass(frozen=True)
class Steps(Condition):
    """Fires after `limit` steps: ticks of the loop, or positions of a lane."""

    limit: int

    def __post_init__(self) -> None:
        require_types(self, "Steps({})")
        require(self.limit >= 1, f"Steps(limit) must be at least 1, got {self.limit}.")

    def observe(self, state: JSON, step: Step) -> Observed:
        if step.tick < self.limit:
            return None, None
        limit = "the limit" if step.tick == self.limit else f"the limit is {self.limit}"
        sentence = f"It has taken {step.tick} steps, {limit}."
        return None, Stopped(StopKind.BUDGET, sentence, str(self), {"steps": step.tick})

    def reached(self, state: JSON, last: Step) -> Stopped | None:
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

    def observe(self, state: JSON, step: Step) -> Observed:
        epoch = number(step.report.get("epoch"))
        if epoch is None or epoch < self.limit:
            return None, None
        sentence = f"It has completed {self.limit:g} epochs, the limit."
        return None, Stopped(StopKind.BUDGET, sentence, str(self), {"epoch": epoch})

    def reached(self, state: JSON, last: Step) -> Stopped | None:
        return self.observe(state, last)[1]


@dataclass(frozen=True)
class Seconds(Condition):
    """Fires when `limit` seconds have been spent; pauses and time between runs do not count."""

    limit: float
    spends: ClassVar[bool] = True

    def __post_init__(self) -> None:
        require_types(self, "Seconds({})")
        require(self.limit > 0, f"Seconds(limit) must be above 0, got {self.limit}.")

    def initial_state(self) -> JSON:
        return [0.0, time.monotonic()]

    def observe(self, state: JSON, step: Step) -> Observed:
        spent, last = cast(list[float], state)
        now = time.monotonic()
        spent += now - last
        return [spent, now], self._verdict(spent)

    def wake(self, state: JSON) -> JSON:
        # Another process has another monotonic clock, and a pause does not count.
        return [cast(list[float], state)[0], time.monotonic()]

    def exhausted(self, state: JSON) -> Stopped | None:
        return self._verdict(cast(list[float], state)[0])

    def by_clock(self, state: JSON) -> bool:
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

    def initial_state(self) -> JSON:
        return 0

    def observe(self, state: JSON, step: Step) -> Observed:
        spent = cast(float, state)
        value = step.report.get(self.name)
        if isinstance(value, bool | int | float):
            spent += value
        return spent, self.exhausted(spent)

    def charge(self, state: JSON, spent: Mapping[str, float]) -> JSON:
        return cast(float, state) + spent.get(self.name, 0)

    def exhausted(self, state: JSON) -> Stopped | None:
        spent = cast(float, state)
        if spent < self.limit:
            return None
        sentence = f"{spent:g} {self.name} have been spent; the limit is {self.limit:g}."
        return Stopped(StopKind.BUDGET, sentence, str(self), {self.name: spent})
