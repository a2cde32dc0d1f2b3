"""Ctrl-C and SIGTERM end a loop at its next step; installed by the command line only."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any, Protocol

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Pausable(Protocol):
    """What can be asked to end at its next step, such as a loop."""

    def pause(self, reason: str = ...) -> None:
        """End at the next step; going on later is possible."""
        ...


@dataclass
class SignalState:
    """Whether a signal has asked the loop to end."""

    by_signal: bool = False


@contextmanager
def ends_by_signal(loop: Pausable) -> Iterator[SignalState]:
    """Pause the loop at the first Ctrl-C or SIGTERM, with a checkpoint; end at once at the second.

    Yields what tells whether there was one. The second raises `KeyboardInterrupt` wherever the
    program is; what has been acknowledged is in the journal already. Outside the main thread
    nothing is installed.
    """
    if threading.current_thread() is not threading.main_thread():
        yield SignalState()
        return
    asked = SignalState()

    def ask(number: int, frame: FrameType | None) -> None:
        if asked.by_signal:
            raise KeyboardInterrupt
        asked.by_signal = True
        loop.pause(f"It was interrupted ({signal.Signals(number).name}).")

    before: dict[signal.Signals, Any] = {number: signal.signal(number, ask) for number in SIGNALS}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
