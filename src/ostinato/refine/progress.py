"""The progress of a `Refine` or a job: live in a terminal, a bar in a notebook, else lines."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TextIO, TypeVar

from rich.console import Console
from rich.live import Live
from rich.text import Text

from ostinato.journal import Run
from ostinato.loop import LaneResult, Step
from ostinato.refine.notebook_progress import NotebookProgress, in_notebook, load_tqdm
from ostinato.refine.progress_tally import (
    ProgressDisplay,
    ProgressTally,
    QuietProgress,
    Tally,
)
from ostinato.refine.watched import Watched

PLAIN_EVERY = 1.0
"""Seconds between two lines if the output is not a terminal, in the first minute.

Then ten times as long, after ten minutes a minute: the log of a job of hours stays short.
"""

SHOWN_AT_ONCE = 3
"""How many of the first accepted replies are shown as soon as they are there."""

SHOWN_EVERY = 1.0
"""Seconds between two accepted replies that are shown after these."""


LOOK = 256
"""Items of a pass between two looks at the clock."""

T = TypeVar("T")


class PlainProgress(QuietProgress):
    """Writes a line every few seconds; with `watched`, the tokens of one item instead."""

    def __init__(self, tally: Tally, stream: TextIO, watched: Watched | None = None) -> None:
        self.tally, self.stream, self.watched = tally, stream, watched
        self._shown = tally.done
        self._first = self._last = time.monotonic()

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
    """Keeps one line up to date in a terminal, below the watched item or the accepted replies.

    `replies`: print accepted replies. `beside` returns what the line says after the numbers.
    """

    def __init__(
        self,
        tally: Tally,
        console: Console,
        watched: Watched | None = None,
        *,
        replies: bool = True,
        beside: Callable[[], str] = str,
    ) -> None:
        self.tally, self.console, self.watched = tally, console, watched
        self._replies, self._beside = replies and watched is None, beside
        self._live = Live(
            console=console,
            refresh_per_second=8,
            get_renderable=self._render,
            # Where standard output is no terminal, what is printed there is not for this one.
            redirect_stdout=sys.stdout.isatty(),
        )
        self._shown, self._last = 0, 0.0

    def step(self, step: Step) -> None:
        """Count the step; `Live` refreshes the display from its own thread."""
        self.tally.add_step(step)
        if self.watched is not None:
            for done in self.watched.finished(step):
                self._live.console.print(done)
        elif self._replies:
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
        told = f"{self.tally.line(time.monotonic())}  {self._beside()}".rstrip()
        line = Text(told, style="dim", no_wrap=True, overflow="ellipsis")
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


def is_watched() -> bool:
    """Return whether somebody sees standard error: in a terminal or a notebook."""
    return in_terminal() or in_notebook()


def tally_of(items: int, run: Run | None) -> ProgressTally:
    """Return the numbers of `items` items, of which a run may have results."""
    tally = ProgressTally(items)
    if run is not None:
        for _, row in run.results():
            tally.add(LaneResult.from_json(row))
        saved = run.checkpoints()
        tally.again = run.keys_after(saved[-1].tick if saved else 0)
    tally.before = tally.earlier = tally.done
    return tally


def display_of(
    tally: Tally,
    *,
    watch: bool = False,
    replies: bool = True,
    beside: Callable[[], str] = str,
) -> ProgressDisplay:
    """Return what shows the numbers on standard error: a live line in a terminal, else lines.

    In a notebook a bar of items, where tqdm is installed. `watch`: show the tokens of one item,
    too. `replies`: in a terminal, print accepted ones. `beside` returns what a live line says
    after the numbers.
    """
    watched = Watched() if watch else None
    # On standard error, so that --json and pipes get only results on standard output.
    console = Console(file=sys.stderr, highlight=False)
    if in_notebook():
        if isinstance(tally, ProgressTally) and not watch and (tqdm := load_tqdm()) is not None:
            return NotebookProgress(tally, tqdm)
    elif console.is_terminal:
        return LiveProgress(tally, console, watched, replies=replies, beside=beside)
    return PlainProgress(tally, sys.stderr, watched)


def progress_of(
    items: int, run: Run | None, *, watch: bool = False, quiet: bool = False
) -> ProgressDisplay:
    """Return the display for `items` items, of which a run may have results.

    It is live in a terminal, and in a notebook where tqdm is installed. `watch`: show the tokens of
    one item, too.
    """
    if quiet and not watch:
        return QuietProgress()
    return display_of(tally_of(items, run), watch=watch)
