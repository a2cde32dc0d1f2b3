"""What a stop condition is: a frozen value, folded over a state that is JSON.

The engine keeps the state. A condition observes every step and returns its next state and, where it
fires, a `Stopped`. Both sides of `|` and `&` always observe, so that no counter misses a step.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar

from ostinato.errors import InputError
from ostinato.journal import PRECEDENCE, StopKind, Stopped, first
from ostinato.loop.conditions.label import callable_label
from ostinato.loop.step import Step

State = Any
"""A condition's state, made of JSON. The condition itself says what it is made of; nobody else
looks into it."""

Observed = tuple[State, Stopped | None]


class Condition(ABC):
    """Decides after a step whether the loop ends. Subclasses are frozen dataclasses.

    `spends` marks a condition that counts what going back does not refund.
    """

    spends: ClassVar[bool] = False

    def names(self) -> tuple[str, ...]:
        """Return the names of the reports' values without which it can never fire."""
        return ()

    def initial_state(self) -> State:
        """Return the state before the first step."""
        return None

    @abstractmethod
    def observe(self, state: State, step: Step) -> Observed:
        """Fold a step into the state; a `Stopped` where the condition fires."""

    def back(self, then: State, now: State) -> State:
        """Return the state after going back to a position where the state was `then`."""
        return now if self.spends else then

    def wake(self, state: State) -> State:
        """Return the state as it continues in another process or after a pause."""
        return state

    def exhausted(self, state: State) -> Stopped | None:
        """Return the stop of a limit that is used up, which going back cannot refund; else None."""
        return None

    def reached(self, state: State, last: Step) -> Stopped | None:
        """Return the stop that a run resumed under this condition needs no further step for.

        `last` is its last step, with an empty report where that is not recorded.
        """
        return self.exhausted(state)

    def last_good(self, state: State) -> int | None:
        """Return the last position before a trouble that goes on now; None where there is none.

        A checkpoint from before is kept for as long as the trouble lasts.
        """
        return None

    def charge(self, state: State, spent: Mapping[str, float]) -> State:
        """Return the state after something was spent beside the steps, as by a judge."""
        return state

    def by_clock(self, state: State) -> bool:
        """Return whether a time limit has run out: computing again could then end elsewhere."""
        return False

    def share(self, state: State, last: Step) -> float | None:
        """Return how much of the way to its limit is done, in [0, 1]; None where nobody knows.

        `last` is the last step.
        """
        return None

    def __or__(self, other: Condition | Callable[[Step], object]) -> Condition:
        return AnyOf(_parts(AnyOf, self) + _parts(AnyOf, as_condition(other)))

    def __and__(self, other: Condition | Callable[[Step], object]) -> Condition:
        return AllOf(_parts(AllOf, self) + _parts(AllOf, as_condition(other)))

    def __str__(self) -> str:
        return _spelling(self)


def _parts(kind: type[_Joined], condition: Condition) -> tuple[Condition, ...]:
    return condition.conditions if isinstance(condition, kind) else (condition,)


def _spelling(condition: Condition) -> str:
    """Spell a condition as the Python that makes it; values left at their default are left out."""
    given: list[str] = []
    for index, spec in enumerate(fields(condition)):  # type: ignore[arg-type]
        value = getattr(condition, spec.name)
        if value != spec.default:
            given.append(f"{spec.name}={value!r}" if index else repr(value))
    return f"{type(condition).__name__}({', '.join(given)})"


def require(right: bool, message: str) -> None:
    """Raise `InputError` with the message where a parameter is not right."""
    if not right:
        raise InputError(message)


def require_name(kind: str, name: object) -> None:
    """Raise `InputError` where `name` is no text that could name a report's value."""
    require(
        isinstance(name, str) and bool(name.strip()),
        f"{kind}(name) must be the name of a value in the reports, a text, got {name!r}. "
        f"Write for example {kind}('loss/valid', …).",
    )


def numbers(report_value: object) -> Sequence[float]:
    """Return the numbers of a report's value: one, several in their order, or none.

    Several are a list, a tuple, or a tensor or array of one dimension. A list with anything else in
    it has none.
    """
    if isinstance(report_value, bool | int | float):
        return (report_value,)
    if not isinstance(report_value, list | tuple):
        # A tensor, an array, or a number of numpy; the shape of an image is that of no metric.
        if not hasattr(report_value, "ndim") or report_value.ndim > 1:
            return ()
        array: Any = report_value
        report_value = array.tolist()
        if not isinstance(report_value, list):
            return numbers(report_value)
    if all(isinstance(each, int | float) for each in report_value):
        return report_value
    parts = [() if isinstance(each, list | tuple) else numbers(each) for each in report_value]
    return [part[0] for part in parts] if all(len(part) == 1 for part in parts) else ()


def fold_in_order(
    fold: Callable[[State, Any], Observed], state: State, values: Iterable[object]
) -> Observed:
    """Fold a step's values one by one; the stop is the first one that fired."""
    stopped: Stopped | None = None
    for value in values:
        state, fired = fold(state, value)
        stopped = stopped or fired
    return state, stopped


@dataclass(frozen=True)
class _Joined(Condition):
    """Several conditions, each of which is always observed; the state is the list of theirs."""

    conditions: tuple[Condition, ...]

    def names(self) -> tuple[str, ...]:
        return tuple(name for condition in self.conditions for name in condition.names())

    def initial_state(self) -> State:
        return [condition.initial_state() for condition in self.conditions]

    def observe(self, state: State, step: Step) -> Observed:
        states: list[State] = []
        stops: list[Stopped | None] = []
        for condition, before in self._pairs(state):
            after, stopped = condition.observe(before, step)
            states.append(after)
            stops.append(stopped)
        return states, self._joined(stops)

    def reached(self, state: State, last: Step) -> Stopped | None:
        return self._joined([c.reached(each, last) for c, each in self._pairs(state)])

    @abstractmethod
    def _joined(self, stops: list[Stopped | None]) -> Stopped | None:
        """Return the stop of the whole, out of those of its conditions."""

    def back(self, then: State, now: State) -> State:
        return [
            condition.back(before, after)
            for (condition, before), after in zip(self._pairs(then), now, strict=True)
        ]

    def wake(self, state: State) -> State:
        return [condition.wake(each) for condition, each in self._pairs(state)]

    def last_good(self, state: State) -> int | None:
        return _earliest(condition.last_good(each) for condition, each in self._pairs(state))

    def charge(self, state: State, spent: Mapping[str, float]) -> State:
        return [condition.charge(each, spent) for condition, each in self._pairs(state)]

    def by_clock(self, state: State) -> bool:
        return any(condition.by_clock(each) for condition, each in self._pairs(state))

    def _shares(self, state: State, last: Step) -> list[float | None]:
        return [condition.share(each, last) for condition, each in self._pairs(state)]

    def _pairs(self, state: State) -> Iterator[tuple[Condition, State]]:
        return zip(self.conditions, state, strict=True)

    def _spelled(self, sign: str) -> str:
        """Spell the conditions with a sign between them; those that are joined get brackets."""
        parts = (f"({c})" if isinstance(c, _Joined) else str(c) for c in self.conditions)
        return sign.join(parts)


@dataclass(frozen=True)
class AnyOf(_Joined):
    """Fires when at least one of its conditions fires (`a | b`)."""

    def _joined(self, stops: list[Stopped | None]) -> Stopped | None:
        return first(stops)

    def exhausted(self, state: State) -> Stopped | None:
        # Only here: an AllOf ends with the last of its conditions, so one that has nothing left
        # does not end it.
        return first(condition.exhausted(each) for condition, each in self._pairs(state))

    def share(self, state: State, last: Step) -> float | None:
        known = [share for share in self._shares(state, last) if share is not None]
        return max(known, default=None)

    def __str__(self) -> str:
        return self._spelled(" | ")


@dataclass(frozen=True)
class AllOf(_Joined):
    """Fires when all of its conditions fire at the same step (`a & b`)."""

    def _joined(self, stops: list[Stopped | None]) -> Stopped | None:
        fired = [stop for stop in stops if stop is not None]
        if len(fired) < len(self.conditions):
            return None
        lead = min(fired, key=lambda stop: PRECEDENCE.index(stop.kind))
        numbers = {name: value for stop in fired for name, value in stop.numbers.items()}
        sentence = " ".join(stop.sentence for stop in fired)
        good = _earliest(stop.last_good for stop in fired)
        return Stopped(lead.kind, sentence, str(self), numbers, good)

    def share(self, state: State, last: Step) -> float | None:
        known = [share for share in self._shares(state, last) if share is not None]
        return min(known) if len(known) == len(self.conditions) else None

    def __str__(self) -> str:
        return self._spelled(" & ")


def _earliest(positions: Iterable[int | None]) -> int | None:
    return min((each for each in positions if each is not None), default=None)


@dataclass(frozen=True)
class Never(Condition):
    """Never fires: the process ends by itself, or a person stops it."""

    def observe(self, state: State, step: Step) -> Observed:
        return None, None


@dataclass(frozen=True)
class Predicate(Condition):
    """Fires when a callable returns true, a sentence, or a `Stopped`.

    The journal has its name but cannot restore it: such a run is resumed from Python only.
    """

    call: Callable[[Step], object]

    def observe(self, state: State, step: Step) -> Observed:
        answer = self.call(step)
        if isinstance(answer, Stopped):
            return None, answer
        if not answer:
            return None, None
        sentence = answer if isinstance(answer, str) else f"{self._label} returned {answer!r:.60}."
        return None, Stopped(StopKind.PASSED, sentence, str(self))

    def __str__(self) -> str:
        return f"Predicate({self._label})"

    @property
    def _label(self) -> str:
        return callable_label(self.call)


def as_condition(value: object) -> Condition:
    """Return a condition as it is, a callable as a `Predicate`; refuse anything else."""
    if isinstance(value, Condition):
        return value
    if callable(value):
        return Predicate(value)
    raise InputError(
        f"A stop condition must be a Condition or a callable, got {value!r}. "
        "Give for example until=Steps(1000) | Plateau('loss/valid')."
    )
