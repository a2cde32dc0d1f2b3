"""Ctrl-C and SIGTERM: they pause a loop at its next step, so that its run is saved there.

Knows no run. A handler is installed in the main thread only, and for the time of a `with` block.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any, NoReturn, Protocol

SIGNALS = (signal.SIGINT, signal.SIGTERM)  # Ctrl-C; what containers and job schedulers send
_BY_DEFAULT = (signal.default_int_handler, signal.SIG_DFL)


class Pausable(Protocol):
    """Something that ends at its next step on request, such as a loop."""

    def pause(self, reason: str = ...) -> None:
        """End at the next step; a later resume is possible."""
        ...


class LoopInterrupted(KeyboardInterrupt):
    """Ends the step of a loop in which another one was paused by a signal: its work is half done.

    The outer loop does not record the step, and takes it again when it is resumed.
    """


@dataclass(eq=False)
class OpenLoop:
    """A loop in a `with` block, and what tells that its end is saved.

    `interrupted`: a signal that is meant for a loop around it has paused it.
    """

    loop: Pausable
    is_saved: Callable[[], bool]
    interrupted: bool = False


@dataclass
class SignalState:
    """Which signal has paused the loop; 0 for none."""

    number: int = 0


_open: list[OpenLoop] = []  # those in `with` blocks of the main thread, the outermost first


@contextmanager
def ends_by_signal(loop: Pausable) -> Iterator[SignalState]:
    """Pause the loop, with a checkpoint, at the first Ctrl-C or SIGTERM; end at once at the second.

    Loops within it are paused too. The second raises `KeyboardInterrupt` wherever the program is;
    the journal already holds what was acknowledged. Yields which signal came.
    """
    state = SignalState()
    # Python installs handlers in the main thread only, and raises elsewhere.
    if threading.current_thread() is not threading.main_thread():
        yield state
        return

    def pause(number: int) -> None:
        if state.number:
            raise KeyboardInterrupt
        state.number = number
        _pause_all(loop, number)

    with _handled_by(pause, SIGNALS):
        try:
            yield state
        except LoopInterrupted:
            if not state.number:
                raise


@contextmanager
def sigterm_interrupts() -> Iterator[None]:
    """Treat SIGTERM as Ctrl-C: `KeyboardInterrupt` is raised, so that half a file is deleted.

    For what a command does before and after its loop; within, `ends_by_signal` is in force.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    with _handled_by(_interrupt, [signal.SIGTERM]):
        yield


def _interrupt(number: int) -> NoReturn:
    raise KeyboardInterrupt


@contextmanager
def saved_at_signals(
    loop: Pausable, *, is_run: bool, is_saved: Callable[[], bool]
) -> Iterator[None]:
    """Pause the loop at a signal, and pass the signal on after the block, where the state is saved.

    Only where `is_run`, so that there is something to save, and only signals that nobody else
    handles. One that comes when all open loops are saved is passed on at once. Raises
    `LoopInterrupted` after the block where a loop around this one was paused, and this one with it.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    opened = OpenLoop(loop, is_saved)
    _open.append(opened)
    try:
        free = [number for number in SIGNALS if signal.getsignal(number) in _BY_DEFAULT]
        with _passed_on(loop, free if is_run else ()):
            yield
    finally:
        _open.remove(opened)
    if opened.interrupted:
        raise LoopInterrupted


@contextmanager
def _passed_on(loop: Pausable, numbers: Sequence[signal.Signals]) -> Iterator[None]:
    came: list[int] = []

    def pause(number: int) -> None:
        if came or all(each.is_saved() for each in _open):
            _pass_on(number)
        came.append(number)
        _pause_all(loop, number)

    with _handled_by(pause, numbers):
        try:
            yield
        except LoopInterrupted:
            if not came:
                raise
    if came:
        _pass_on(came[0])


def _pause_all(loop: Pausable, number: int) -> None:
    reason = f"It was interrupted ({signal.Signals(number).name})."
    loop.pause(reason)
    for inner in _open:
        if inner.loop is not loop:
            inner.interrupted = True
            inner.loop.pause(reason)


@contextmanager
def _handled_by(handle: Callable[[int], None], numbers: Sequence[signal.Signals]) -> Iterator[None]:
    driver = os.getpid()

    def called(number: int, frame: FrameType | None) -> None:
        if os.getpid() == driver:
            handle(number)
            return
        # A forked child, such as a worker that its pool ends: the loops are the parent's.
        signal.signal(number, before[signal.Signals(number)])
        signal.raise_signal(number)

    before: dict[signal.Signals, Any] = {
        number: signal.signal(number, called) for number in numbers
    }
    try:
        yield
    finally:
        # Restored, as tests and recipes call several commands in one process; but not over a
        # handler that came within the block.
        for number, handler in before.items():
            if signal.getsignal(number) is called:
                signal.signal(number, handler)


def _pass_on(number: int) -> NoReturn:
    """End the program as it would have ended without a handler, but by an exception."""
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    sys.exit(128 + number)
