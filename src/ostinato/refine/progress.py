"""The progress of a `Refine` or a job: a live line in a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Protocol, TextIO, TypeVar

from rich.console import Console
from rich.live import Live
from rich.text import Text

from ostinato.journal import Run
from ostinato.loop import LaneResult, Report, Step
from ostinato.refine.report.html import duration
from ostinato.refine.results import READY
from ostinato.refine.watched import Watched

PLAIN_EVERY = 1.0
"""Seconds between two lines if the output is not a terminal, in the first minute.

Then ten times as long, after ten minutes a minute: the log of a job of hours stays short.
"""

RECENT = 10.0
"""Seconds over which the pace of items is measured."""

ENOUGH = 3
"""How many items must be done before the remaining time is estimated."""

SHOWN_AT_ONCE = 3
"""How many of the first accepted replies are shown as soon as they are there."""

SHOWN_EVERY = 1.0
"""Seconds between two accepted replies that are shown after these."""


LOOK = 256
"""Items of a pass between two looks at the clock."""

T = TypeVar("T")


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


class PlainProgress(QuietProgress):
    """Writes a line every few seconds; with `watched`, the tokens of one item instead."""

    def __init__(
        self, tally: ProgressTally, stream: TextIO, watched: Watched | None = None
    ) -> None:
        self.tally, self.stream, self.watched = tally, stream, watched
        self._shown = tally.done
        self._first = self._last = time.monotonic()

    def loading(self) -> None:
        """Write a line about the model."""
        self._write("Loading the model…\n")

    def __enter__(self) -> PlainProgress:
        self._first = time.monotonic()
        self.tally.start(self._first)
        self._write(f"Working: {self.tally.line(self._first)}\n")
        return self

    def __exit__(self, *raised: object) -> None:
        if self.watched is None and self.tally.done > self._shown:
            self._write(self.tally.line(time.monotonic()) + "\n")

    def step(self, step: Step) -> None:
        """Count the step; write a line if the last one is old enough."""
        self.tally.add_step(step)
        if self.watched is not None:
            self._write("".join(self.watched.plain(step)))
            return
        now = time.monotonic()
        if now - self._last >= interval(now - self._first):
            self._last, self._shown = now, self.tally.done
            self._write(self.tally.line(now) + "\n")

    def _write(self, text: str) -> None:
        if text:
            self.stream.write(text)
            self.stream.flush()


def interval(elapsed: float) -> float:
    """Return the seconds between two plain lines, that long after the first one."""
    return PLAIN_EVERY * (1 if elapsed < 60 else 10 if elapsed < 600 else 60)


class PassProgress:
    """Says how far a pass over many items is, as often as `PlainProgress`; not in a short one.

    `say` gets a line.
    """

    def __init__(self, what: str, say: Callable[[str], None]) -> None:
        self._what, self._say = what, say
        self._first = self._last = time.monotonic()

    def over(self, items: Iterable[T]) -> Iterator[T]:
        """Yield the items, and say at times how many they were."""
        for number, item in enumerate(items, 1):
            yield item
            if number % LOOK == 0:
                self._look(number)

    def _look(self, count: int) -> None:
        now = time.monotonic()
        if now - self._last >= interval(now - self._first):
            self._last = now
            rate = count / (now - self._first)
            self._say(f"{self._what}: {count:,} items, {rate:,.0f} items/s")


class LiveProgress(QuietProgress):
    """Keeps one line up to date in a terminal, below the watched item or the accepted replies."""

    def __init__(
        self, tally: ProgressTally, console: Console, watched: Watched | None = None
    ) -> None:
        self.tally, self.console, self.watched = tally, console, watched
        self._live = Live(console=console, refresh_per_second=8, get_renderable=self._render)
        self._shown, self._last = 0, 0.0

    def loading(self) -> None:
        """Show a line about the model, which the first refresh overwrites."""
        self.console.print("Loading the model…", style="dim", end="\r")

    def step(self, step: Step) -> None:
        """Count the step; `Live` refreshes the display from its own thread."""
        self.tally.add_step(step)
        if self.watched is not None:
            for done in self.watched.finished(step):
                self._live.console.print(done)
        else:
            for result in step.results:
                self._show(result)

    def _show(self, result: LaneResult) -> None:
        """Print an accepted reply above the line, cut to the width of the terminal."""
        now = time.monotonic()
        soon = self._shown >= SHOWN_AT_ONCE and now - self._last < SHOWN_EVERY
        if soon or not result.accepted:
            return
        self._shown, self._last = self._shown + 1, now
        reply = " ".join(str(result.output).split())
        line = Text.assemble(("✓ ", "green"), (f"{result.key}  ", "bold"), reply)
        self._live.console.print(line, no_wrap=True, overflow="ellipsis", crop=True)

    def _render(self) -> Text:
        line = Text(self.tally.line(time.monotonic()), style="dim")
        if self.watched is None or not self.watched.key:
            return line
        return Text("\n").join([self.watched.text(), line])

    def __enter__(self) -> LiveProgress:
        self.tally.start(time.monotonic())
        self._live.start()
        return self

    def __exit__(self, *raised: object) -> None:
        self._live.stop()


def in_terminal() -> bool:
    """Return whether standard error is a terminal."""
    return Console(file=sys.stderr).is_terminal


def progress_of(
    items: int, run: Run | None, *, watch: bool = False, quiet: bool = False
) -> ProgressDisplay:
    """Return the display for `items` items, of which a run may have results: live in a terminal.

    `watch`: show the tokens of one item, too.
    """
    if quiet and not watch:
        return QuietProgress()
    tally = ProgressTally(items)
    if run is not None:
        for _, row in run.results():
            tally.add(LaneResult.from_json(row))
        saved = run.checkpoints()
        tally.again = run.keys_after(saved[-1].tick if saved else 0)
    tally.before = tally.earlier = tally.done
    watched = Watched() if watch else None
    # On standard error, so that --json and pipes get only results on standard output.
    console = Console(file=sys.stderr, highlight=False)
    if console.is_terminal:
        return LiveProgress(tally, console, watched)
    return PlainProgress(tally, sys.stderr, watched)
