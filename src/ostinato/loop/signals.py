"""Ctrl-C and SIGTERM: they pause a loop at its next step, so that its run is saved there.

Knows no run. A handler is installed in the main thread only, and for the time of a `with` block.
"""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
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


@dataclass
class SignalState:
    """Which signal has paused the loop; 0 for none."""

    number: int = 0


_open: list[Pausable] = []  # the loops in `with` blocks of the main thread, the outermost first


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

    def handle(number: int, frame: FrameType | None) -> None:
        if state.number:
            raise KeyboardInterrupt
        state.number = number
        reason = f"It was interrupted ({signal.Signals(number).name})."
        for each in [loop, *(inner for inner in _open if inner is not loop)]:
            each.pause(reason)

    before: dict[signal.Signals, Any] = {
        number: signal.signal(number, handle) for number in SIGNALS
    }
    try:
        yield state
    finally:
        # Restored, as tests and recipes call several commands in one process.
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def saved_at_signals(loop: Pausable, *, is_run: bool) -> Iterator[None]:
    """Pause the loop at a signal, and pass the signal on after the block, where the state is saved.

    Only where `is_run`, so that there is something to save, and nobody else handles the signals.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    _open.append(loop)
    try:
        if is_run and tuple(map(signal.getsignal, SIGNALS)) == _BY_DEFAULT:
            with ends_by_signal(loop) as state:
                yield
            if state.number:
                _pass_on(state.number)
        else:
            yield
    finally:
        _open.remove(loop)


def _pass_on(number: int) -> NoReturn:
    """End the program as it would have ended without a handler, but by an exception."""
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    sys.exit(128 + number)
