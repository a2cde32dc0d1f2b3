"""Running a loop for a command: its exit codes, Ctrl-C and SIGTERM, the rows of finished items.

Knows no family. Signals are handled here only: the library never installs a handler.
"""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import IntEnum
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn, Protocol

import click

from ostinato.errors import InputError

if TYPE_CHECKING:
    from ostinato.journal import Run
    from ostinato.loop import Loop, Step

SIGNALS = (signal.SIGINT, signal.SIGTERM)  # Ctrl-C; what containers and job schedulers send
RESUME = "Run the same command again to resume."


class Exit(IntEnum):
    """What the exit code of a command means."""

    DONE = 0  # everything was accepted, or the training ended as planned
    NOT_ALL = 1  # some outputs were not accepted or not written, or a training diverged
    BAD_INPUT = 2  # an argument or a file is wrong
    BUDGET = 3  # the job's budget ended with items unfinished
    INTERRUPTED = 130  # Ctrl-C or SIGTERM; the same command resumes


# Signals ----------------------------------------------------------------------------------------


class Pausable(Protocol):
    """Something that ends at its next step on request, such as a loop."""

    def pause(self, reason: str = ...) -> None:
        """End at the next step; a later resume is possible."""
        ...


@dataclass
class SignalState:
    """Whether a signal has paused the loop."""

    by_signal: bool = False


@contextmanager
def ends_by_signal(loop: Pausable) -> Iterator[SignalState]:
    """Pause the loop, with a checkpoint, at the first Ctrl-C or SIGTERM; end at once at the second.

    The second raises `KeyboardInterrupt` wherever the program is; the journal already holds what
    was acknowledged. Yields whether a signal came.
    """
    # Python installs handlers in the main thread only, and raises elsewhere.
    if threading.current_thread() is not threading.main_thread():
        yield SignalState()
        return
    state = SignalState()

    def handle(number: int, frame: FrameType | None) -> None:
        if state.by_signal:
            raise KeyboardInterrupt
        state.by_signal = True
        loop.pause(f"It was interrupted ({signal.Signals(number).name}).")

    before: dict[signal.Signals, Any] = {
        number: signal.signal(number, handle) for number in SIGNALS
    }
    try:
        yield state
    finally:
        # Restored, as tests and recipes call several commands in one process.
        for number, handler in before.items():
            signal.signal(number, handler)


# Rows -------------------------------------------------------------------------------------------


def rows_of(
    loop: Loop,
    run_name: str | None,
    *,
    watch: Callable[[Step], None] | None = None,
    read: Callable[[Run], None] | None = None,
) -> list[dict[str, Any]]:
    """Run the loop until it ends or a signal ends it; return the finished items' rows by index.

    `watch` receives every step. A recorded run returns the rows of earlier sessions too, and `read`
    receives the run.
    """
    from ostinato.journal import Journal

    rows: dict[str, dict[str, Any]] = {}
    with ends_by_signal(loop), loop:
        for step in loop:
            if watch is not None:
                watch(step)
            rows |= {key: dict(row) for key, row in step.results}
    if run_name is not None:
        # A resumed loop yields only the rows that are new; the journal has them all.
        with Journal() as journal:
            run = journal.get(run_name)
            rows = dict(run.results())
            if read is not None:
                read(run)
    return sorted(rows.values(), key=lambda row: int(row["index"]))


def refuse_errors(rows: Sequence[Mapping[str, Any]]) -> None:
    """Raise `InputError` with the reason of the first item that could not be worked on."""
    for row in rows:
        if row["stopped"]["kind"] == "error":
            raise InputError(row["stopped"]["sentence"])


def exit_interrupted(done: int, count: int, items: str, run_name: str | None) -> NoReturn:
    """Say how many items are done and how to resume, and exit with 130."""
    hint = RESUME if run_name is not None else "Give --run NAME to be able to resume."
    click.echo(f"{done} of {count} {items} are done. {hint}", err=True)
    sys.exit(Exit.INTERRUPTED)
