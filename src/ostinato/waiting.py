"""Tells what is going on where something takes longer than about a second: a line, told once.

Nobody is told unless a program listens, as the command line does.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

AFTER = 1.0
"""Seconds until a line is told."""

__all__ = ["AFTER", "listen", "waiting"]

_told: set[str] = set()
_listeners: list[Callable[[str], object]] = []


def listen(listener: Callable[[str], object] | None) -> None:
    """Tell lines to a function from now on, from another thread; None: to nobody."""
    _listeners[:] = [] if listener is None else [listener]


@contextmanager
def waiting(line: str) -> Iterator[None]:
    """Tell a line if the block takes longer than `AFTER`, and it has not been told before."""
    if not _listeners or line in _told:
        yield
        return
    timer = threading.Timer(AFTER, _tell, (line,))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _tell(line: str) -> None:
    if line not in _told:
        _told.add(line)
        for listener in _listeners:
            listener(line)
