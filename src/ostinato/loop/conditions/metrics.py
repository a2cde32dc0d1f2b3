"""Conditions on what a process shows: the values of its reports, and its output."""

from __future__ import annotations

import json
import math
from abc import abstractmethod
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any, Literal

from ostinato.arguments import counted, require_types
from ostinato.journal import JSON, StopKind, Stopped
from ostinato.loop.check import Check, Verdict
from ostinato.loop.conditions.base import (
    Condition,
    Observed,
    State,
    fold_in_order,
    numbers,
    require,
    require_name,
)
from ostinato.loop.step import Step


@dataclass(frozen=True)
class _OfMetric(Condition):
    """A condition on the report's numbers `name`; a report without any changes nothing.

    Where a report holds several, each is folded as if it came in a step of its own.
    """

    name: str

    def __post_init__(self) -> None:
        require_name(type(self).__name__, self.name)
        require_types(self, f"{type(self).__name__}({{}})")

    def names(self) -> tuple[str, ...]:
        return (self.name,)

    def observe(self, state: State, step: Step) -> Observed:
        value = step.report.get(self.name)
        if type(value) is float:  # nearly always
            return self._fold(state, value)
        return fold_in_order(self._fold, state, map(float, numbers(value)))

    @abstractmethod
    def _fold(self, state: State, value: float) -> Observed:
        """Fold a value of the metric into the state, as `observe` folds a step."""


@dataclass(frozen=True)
class Reaches(_OfMetric):
    """Fires when the mean of the last `over` values of `name` is past a bound: good enough."""

    above: float | None = field(default=None, kw_only=True)
    below: float | None = field(default=None, kw_only=True)
    over: int = field(default=1, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        one = (self.above is None) != (self.below is None)
        require(one, f"Reaches({self.name!r}) needs either above= or below=, not both or none.")
        require(self.over >= 1, f"Reaches(over) must be at least 1, got {self.over}.")

    def initial_state(self) -> list[float]:
        return []

    def _fold(self, state: list[float], value: float) -> Observed:
        values = [*state, value][-self.over :]
        if len(values) < self.over:
            return values, None
        # Rounded once: a plain sum puts the mean of ten times 0.1 below a bound of 0.1.
        mean = math.fsum(values) / self.over
        if self.above is not None and mean >= self.above:
            return values, self._stop(mean, "at least", self.above)
        if self.below is not None and mean <= self.below:
            return values, self._stop(mean, "at most", self.below)
        return values, None

    def reached(self, state: State, last: Step) -> Stopped | None:
        return self.observe(self.initial_state(), last)[1]

    def _stop(self, mean: float, word: str, bound: float) -> Stopped:
        over = f" over the last {self.over}" if self.over > 1 else ""
        sentence = f"{self.name} is {mean:.4g}{over}: {word} {bound:g} was required."
        return Stopped(StopKind.PASSED, sentence, str(self), {self.name: mean})


@dataclass(frozen=True)
class Exceeds(_OfMetric):
    """Fires when a value of `name` is past a bound that it must not cross: it failed."""

    above: float | None = field(default=None, kw_only=True)
    below: float | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        one = (self.above is None) != (self.below is None)
        require(one, f"Exceeds({self.name!r}) needs either above= or below=, not both or none.")

    def _fold(self, state: State, value: float) -> Observed:
        over = self.above is not None and value > self.above
        under = self.below is not None and value < self.below
        if not (over or under):
            return None, None
        bound = self.above if over else self.below
        word = "above" if over else "below"
        sentence = f"{self.name} is {value:.4g}, {word} its bound of {bound:g}."
        return None, Stopped(StopKind.FAILED, sentence, str(self), {self.name: value})


@dataclass(frozen=True)
class Plateau(_OfMetric):
    """Fires when `name` has not improved by more than `min_delta` in `patience` values."""

    patience: int = 10
    min_delta: float = 0.0
    mode: Literal["min", "max"] = "min"

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.patience >= 1, f"Plateau(patience) must be at least 1, got {self.patience}.")
        require(self.min_delta >= 0, f"Plateau(min_delta) must be 0 or more, got {self.min_delta}.")

    def initial_state(self) -> list[Any]:
        return [None, 0]

    def _fold(self, state: list[Any], value: float) -> Observed:
        best, waited = state
        if best is None or self._better(value, best):
            return [value, 0], None
        waited += 1
        if waited < self.patience:
            return [best, waited], None
        sentence = f"{self.name} has not improved on {best:.4g} in {waited} values."
        numbers: dict[str, JSON] = {"best": best, "last": value, "waited": waited}
        return [best, waited], Stopped(StopKind.NO_PROGRESS, sentence, str(self), numbers)

    def _better(self, value: float, best: float) -> bool:
        if math.isnan(best):  # as a first value: every number is better
            return not math.isnan(value)
        gain = best - value if self.mode == "min" else value - best
        return gain > self.min_delta


@dataclass(frozen=True)
class Converges(_OfMetric):
    """Fires when the last `over` + 1 values of `name` lie within `tolerance` of each other."""

    tolerance: float = 1e-4
    over: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.tolerance >= 0, f"Converges(tolerance) must be >= 0, got {self.tolerance}.")
        require(self.over >= 1, f"Converges(over) must be at least 1, got {self.over}.")

    def initial_state(self) -> list[float]:
        return []

    def _fold(self, state: list[float], value: float) -> Observed:
        values = [*state, value][-self.over - 1 :]
        spread = max(values) - min(values)
        # "not <=": a spread of NaN has not converged.
        if len(values) <= self.over or not spread <= self.tolerance:
            return values, None
        sentence = (
            f"{self.name} has changed by {spread:.3g} over {self.over} values: it has converged."
        )
        numbers: dict[str, JSON] = {self.name: value, "spread": spread}
        return values, Stopped(StopKind.CONVERGED, sentence, str(self), numbers)


@dataclass(frozen=True)
class NotFinite(Condition):
    """Fires when a number in the report, or the one of `name`, is not finite: it diverged."""

    name: str | None = None

    def __post_init__(self) -> None:
        if self.name is not None:
            require_name("NotFinite", self.name)
        require_types(self, "NotFinite({})")

    def names(self) -> tuple[str, ...]:
        return () if self.name is None else (self.name,)

    def observe(self, state: State, step: Step) -> Observed:
        report = step.report
        for name in report if self.name is None else (self.name,):
            value = report.get(name)
            if type(value) is float:  # nearly always
                if math.isfinite(value):
                    continue
                return None, self._stop(name, value)
            for each in numbers(value):
                if not math.isfinite(each):
                    return None, self._stop(name, each)
        return None, None

    def _stop(self, name: str, value: float) -> Stopped:
        sentence = f"{name} is {value}, which is no finite number."
        # A text, as JSON has no NaN.
        return Stopped(StopKind.DIVERGED, sentence, str(self), {name: str(value)})


@dataclass(frozen=True)
class NoProgress(Condition):
    """Fires when `name` (by default the output) was the same `over` times in a row.

    Several numbers in a report count one by one; an output, and any other value, is compared whole.
    """

    name: str = "output"
    over: int = 3

    def __post_init__(self) -> None:
        require_name("NoProgress", self.name)
        require_types(self, "NoProgress({})")
        require(self.over >= 2, f"NoProgress(over) must be at least 2, got {self.over}.")

    def names(self) -> tuple[str, ...]:
        return () if self.name == "output" else (self.name,)

    def initial_state(self) -> list[Any]:
        return ["", 0]

    def observe(self, state: State, step: Step) -> Observed:
        if self.name == "output":
            value = step.output
            return (state, None) if value is None else self._fold(state, value)
        value = step.report.get(self.name)
        if value is None or _is_empty(value):
            return state, None
        return fold_in_order(self._fold, state, numbers(value) or (value,))

    def _fold(self, state: list[Any], value: object) -> Observed:
        last, count = state
        # A hash: the state is saved with every checkpoint, and an output may be long.
        seen = blake2b(_whole(value).encode(), digest_size=12).hexdigest()
        count = count + 1 if seen == last else 1
        if count < self.over:
            return [seen, count], None
        sentence = f"{self.name} has been the same {counted(count, 'times')} in a row."
        return [seen, count], Stopped(StopKind.NO_PROGRESS, sentence, str(self), {"times": count})


def _is_empty(value: object) -> bool:
    """Return whether a value holds no number, as that of a step in which no episode ended."""
    if isinstance(value, list | tuple):
        return not value
    return 0 in getattr(value, "shape", ())


def _whole(value: object) -> str:
    """Return a value as text in full: `repr` leaves out much of a large tensor."""
    if isinstance(value, str | int | float):
        return repr(value)
    try:
        return json.dumps(value, default=lambda v: v.tolist() if hasattr(v, "tolist") else repr(v))
    except (TypeError, ValueError, RecursionError):  # keys that are no text; a value in itself
        return repr(value)


@dataclass(frozen=True)
class Phrase(Condition):
    """Fires when the output, a text, contains `text`: it ended there."""

    text: str

    def __post_init__(self) -> None:
        require_types(self, "Phrase({})")
        require(bool(self.text), "Phrase(text) must be a text of at least one character.")

    def observe(self, state: State, step: Step) -> Observed:
        output = step.output
        if not isinstance(output, str) or self.text not in output:
            return None, None
        sentence = f"It came to the phrase {self.text!r}."
        return None, Stopped(
            StopKind.ENDED, sentence, str(self), {"place": output.index(self.text)}
        )


@dataclass(frozen=True, init=False)
class Passes(Condition):
    """Fires when the step's output passes all of its checks: good enough."""

    checks: tuple[Check, ...]

    def __init__(self, *checks: Check) -> None:
        require(bool(checks), "Passes() needs at least one check.")
        for check in checks:
            require(
                callable(getattr(check, "judge", None)),
                f"Passes(checks) must be checks, got {check!r}. Make a function one with "
                "ostinato.checks.check.",
            )
        object.__setattr__(self, "checks", checks)

    def observe(self, state: State, step: Step) -> Observed:
        output = step.output
        if output is None:
            return None, None
        item = step.item if isinstance(step.item, dict) else {}
        verdicts = [check.judge(output, item) for check in self.checks]
        stopped = judged(verdicts)
        return None, stopped if stopped.kind is StopKind.PASSED else None

    def __str__(self) -> str:
        return f"Passes({', '.join(check.name for check in self.checks)})"


def judged(verdicts: list[Verdict] | tuple[Verdict, ...]) -> Stopped:
    """Return one stop that combines all verdicts."""
    bad = [verdict for verdict in verdicts if not verdict.passed]
    names = [verdict.check for verdict in bad]
    numbers: dict[str, JSON] = {v.check: None if v.error else round(v.score, 4) for v in verdicts}
    if not bad:
        count = len(verdicts)
        sentence = "It passed its check." if count == 1 else f"It passed all {count} checks."
        return Stopped(StopKind.PASSED, sentence, "checks", numbers)
    sentence = " ".join(f"{v.check}: {v.error or v.message or 'not passed.'}" for v in bad)
    return Stopped(StopKind.FAILED, sentence, ", ".join(names), numbers)
