"""A time limit over many judgments. Each asks `left` for the seconds that it may take.

It counts the CPU time of its thread, so a busy machine changes no verdict. Knows no check.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

OVER = "The checks together exceeded their time limit."
"""The message where no time is left."""

# In CPU time of the thread. By the wall clock, checks that compute for 0.008 s took 0.6 s beside
# five busy processes, and served answers failed for it.
_until: ContextVar[float] = ContextVar("until", default=math.inf)


@dataclass
class Deadline:
    """A budget of CPU `seconds` for everything judged inside `with deadline.running():`."""

    seconds: float
    spent: float = 0.0

    @property
    def is_over(self) -> bool:
        """Whether the budget is spent."""
        return self.spent >= self.seconds

    @contextmanager
    def running(self) -> Iterator[None]:
        """Count the CPU time inside, and limit it to what is left."""
        started = time.thread_time()
        try:
            with within(self.seconds - self.spent):
                yield
        finally:
            self.spent += time.thread_time() - started


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """Limit the CPU time inside to `seconds`, or to an outer limit if that ends earlier."""
    token = _until.set(min(_until.get(), time.thread_time() + seconds))
    try:
        yield
    finally:
        _until.reset(token)


def is_over() -> bool:
    """Return whether the time of an outer limit is spent."""
    return time.thread_time() >= _until.get()


def left(most: float) -> float:
    """Return the seconds left, at most `most`. Raises `TimeoutError` where none are.

    Without a limit there are always `most`.
    """
    until = _until.get()
    if until == math.inf:
        return most
    seconds = min(most, until - time.thread_time())
    if seconds <= 0:
        raise TimeoutError(OVER)
    return seconds
