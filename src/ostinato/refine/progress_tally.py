"""The numbers of progress: how much is done, how fast, how long the rest takes. Shows nothing."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from ostinato.arguments import counted
from ostinato.journal import JSON, StopKind
from ostinato.loop import LaneResult, Loop, Report, Step, numbers
from ostinato.refine.report.html import duration
from ostinato.refine.results import READY, blamed

RECENT = 10.0
"""Seconds over which the pace of items is measured."""

ENOUGH = 3
"""How many items or steps must be done before the remaining time is estimated."""

MARKS = 64
"""How many marks a tally keeps of the course of a session."""


class Tally(Protocol):
    """The numbers of a progress; times are monotonic seconds."""

    @property
    def done(self) -> int:
        """How much is done."""
        ...

    def start(self, now: float) -> None:
        """Begin to count the time."""
        ...

    def add_step(self, step: Step) -> None:
        """Count a step."""
        ...

    def numbers(self, now: float) -> dict[str, JSON]:
        """Return the numbers by name; None for what is not known."""
        ...

    def line(self, now: float) -> str:
        """Return the numbers on one line."""
        ...


class ProgressDisplay(Protocol):
    """Something that shows the progress of a loop."""

    def step(self, step: Step) -> None:
        """Record a step, and show it if it is time."""
        ...

    def __enter__(self) -> object: ...

    def __exit__(self, *raised: object) -> None: ...


class QuietProgress:
    """Shows nothing; the base of the others. It counts in a tally, where it has one."""

    def __init__(self, tally: Tally | None = None) -> None:
        self._counts = tally

    def step(self, step: Step) -> None:
        """Show nothing."""
        if self._counts is not None:
            self._counts.add_step(step)

    def __enter__(self) -> QuietProgress:
        if self._counts is not None:
            self._counts.start(time.monotonic())
        return self

    def __exit__(self, *raised: object) -> None:
        return None


@dataclass
class Pace:
    """How fast counts grow: over the last seconds where enough was done in them, else on average.

    The first count is that of what is done, which says what is enough.
    """

    marks: deque[tuple[float, tuple[float, ...]]] = field(default_factory=deque)
    first: tuple[float, tuple[float, ...]] | None = None

    def start(self, now: float, *counts: float) -> None:
        """Begin anew with these counts."""
        self.first = (now, counts)
        self.marks = deque([self.first])

    def rates(self, now: float, *counts: float) -> tuple[float, ...]:
        """Return how much each count grows in a second; call it when the numbers are shown."""
        if self.first is None:
            self.start(now, *(0.0 for _ in counts))
        assert self.first is not None
        self.marks.append((now, counts))
        while len(self.marks) > 2 and now - self.marks[1][0] > RECENT:
            self.marks.popleft()
        then, before = self.marks[0]
        if counts[0] - before[0] < ENOUGH:
            then, before = self.first
        passed = now - then
        grown = (now - then for then, now in zip(before, counts, strict=True))
        return tuple(each / passed if passed > 0 else 0.0 for each in grown)


@dataclass
class ProgressTally:
    """The numbers of lanes. `items` is their total; times are monotonic seconds.

    `tokens` are those that finished items have computed, as in the report; `in_work` has those of
    the others in this session, by key. `again` are the keys of counted items that a resumed run
    finishes again, those after its last checkpoint. `states` counts items that are not done, by
    what they do; `written` returns the tokens where the lanes do not report them; `word` says what
    an item is that is done.
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
    failing: Counter[str] = field(default_factory=Counter)  # drafts that a check has failed
    judged: bool = False
    states: Callable[[], Mapping[str, int]] = dict
    written: Callable[[], int] | None = None
    word: str = "done"
    pace: Pace = field(default_factory=Pace)

    @property
    def done(self) -> int:
        """How many items are accepted or given up."""
        return self.accepted + self.given_up

    @property
    def computed(self) -> int:
        """The tokens computed so far."""
        return self.written() if self.written else self.tokens + sum(self.in_work.values())

    def add(self, result: LaneResult) -> None:
        """Count a finished item."""
        self.in_work.pop(result.key, None)
        self.tokens += int(result.spent.get("computed", 0))
        self.before += result.stopped.condition == READY
        for attempt in result.attempts:
            if attempt.stopped.kind is StopKind.FAILED:
                self.failing.update(blamed(attempt.stopped, attempt.verdicts))
        self.judged = self.judged or bool(result.verdicts) or not result.accepted
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
        self.pace.start(now, self.done, self.computed)

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

    def numbers(self, now: float) -> dict[str, JSON]:
        """Return the numbers by name; None for what is not known."""
        items, tokens = self.pace.rates(now, self.done, self.computed)
        worst = self.failing.most_common(1)
        return {
            "done": self.done,
            "items": self.items,
            "accepted": self.accepted,
            "revised": self.revised,
            "given_up": self.given_up,
            **self.states(),
            "seconds_left": _rounded(self.left(now)),
            "items_per_second": _rounded(items),
            "tokens": self.computed,
            "tokens_per_second": _rounded(tokens),
            "fails_most": worst[0][0] if worst else None,
            "failed_drafts": worst[0][1] if worst else 0,
        }

    def line(self, now: float) -> str:
        """Return the numbers on one line, what matters most first."""
        items, tokens = self.pace.rates(now, self.done, self.computed)
        parts = [f"{self.done} of {self.items} {self.word}"]
        if self.judged:
            parts.append(f"{self.accepted} accepted ({self.accepted / max(1, self.done):.0%})")
        parts += [f"{count} {name}" for name, count in self.states().items() if count]
        parts += _time_left(self.left(now)) + _speed(items, "items")
        if self.failing:
            check, drafts = self.failing.most_common(1)[0]
            parts.append(f"{check} fails most ({drafts})")
        if self.computed:
            parts += [counted(self.computed, "tokens", ","), *_speed(tokens, "tokens")]
        return ", ".join(parts)


@dataclass
class StepTally:
    """The numbers of a process that takes steps, such as a training.

    The time left is known where the loop's condition has a limit (`Loop.share`).
    """

    loop: Loop
    tokens: float = 0
    share: float | None = None
    pace: Pace = field(default_factory=Pace)
    counted: int = 0  # steps of this session
    marks: list[tuple[float, float]] = field(default_factory=list)  # times and shares, evenly
    every: int = 1  # steps from one mark to the next

    @property
    def done(self) -> int:
        """The steps that were taken, in all sessions."""
        return self.loop.tick

    def start(self, now: float) -> None:
        """Begin to count the time."""
        self.marks, self.every = [], 1
        self.pace.start(now, self.done, self.tokens)

    def add_step(self, step: Step, now: float | None = None) -> None:
        """Count a step. Time counts from the end of the first one: it compiles and warms up."""
        self.counted += 1
        self.tokens += sum(numbers(step.report.get("tokens")))
        share = self.loop.share(step)
        self.share = self.share if share is None else share
        if self.share is None or self.counted % self.every:
            return
        now = time.monotonic() if now is None else now
        if not self.marks:
            self.pace.start(now, self.done, self.tokens)
        self.marks.append((now, self.share))
        if len(self.marks) > MARKS:
            self.marks, self.every = self.marks[::2], self.every * 2

    def left(self, now: float) -> float | None:
        """Return the seconds that are left at the pace of this session; None while unknown."""
        if not self.marks or self.share is None or self.share >= 1 or self.counted <= ENOUGH:
            return None
        # Its newer half counts: what became slower, or faster, stays so.
        half = (self.marks[0][1] + self.share) / 2
        began, before = next(each for each in reversed(self.marks) if each[1] <= half)
        gained = self.share - before
        return (now - began) * (1 - self.share) / gained if gained > 0 else None

    def numbers(self, now: float) -> dict[str, JSON]:
        """Return the numbers by name; None for what is not known."""
        steps, tokens = self.pace.rates(now, self.done, self.tokens)
        return {
            "step": self.done,
            "steps": self._steps(),
            "seconds_left": _rounded(self.left(now)),
            "steps_per_second": _rounded(steps),
            "tokens_per_second": _rounded(tokens) if self.tokens else None,
        }

    def line(self, now: float) -> str:
        """Return the numbers on one line: the speed in tokens, else in steps."""
        steps, tokens = self.pace.rates(now, self.done, self.tokens)
        whole = self._steps()
        parts = [f"step {self.done}" + (f" of {whole}" if whole is not None else "")]
        speed = _speed(tokens, "tokens") if self.tokens else _speed(steps, "steps")
        return ", ".join(parts + _time_left(self.left(now)) + speed)

    def rest(self, now: float) -> str:
        """Return what a line of values says besides: the time left and the speed in tokens."""
        tokens = self.pace.rates(now, self.done, self.tokens)[1]
        return ", ".join(_speed(tokens, "tokens") + _time_left(self.left(now)))

    def _steps(self) -> int | None:
        """Return how many steps it takes in all, as far as is known."""
        return round(self.done / self.share) if self.share else None


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)


def _time_left(seconds: float | None) -> list[str]:
    return [] if seconds is None else [f"about {_rough(seconds)} left"]


def _speed(rate: float, unit: str) -> list[str]:
    """Return a rate in the words that make it 1 or more; nothing for none."""
    for per, factor in (("s", 1), ("min", 60), ("h", 3600)):
        if rate * factor >= 0.95:
            return [f"{counted(round(rate * factor), unit, ',')}/{per}"]
    return []


def _rough(seconds: float) -> str:
    """Return an estimated time, no finer than it can be known."""
    grain = 5 if seconds < 60 else 30 if seconds < 600 else 300
    told = duration(max(grain, round(seconds / grain) * grain))
    return told.removesuffix(" 0 s").replace(".0 s", " s")


def computed_in(report: Report) -> int:
    """Return the tokens that a lane's step has run through the network."""
    value = report.get("computed")
    return int(value) if isinstance(value, int | float) else 0
