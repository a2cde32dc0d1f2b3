"""A clock over many judgments: what is judged while it runs ends when its time is up.

It counts what its thread computes, so that a busy machine changes no verdict. A judgment asks
`left` for the seconds that it may take. Knows no check.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

OVER = "The checks together took longer than they may."
"""What is said where no time is left."""

_until: ContextVar[float] = ContextVar("until", default=math.inf)


@dataclass
class Deadline:
    """An allowance of computing `seconds` for all judged inside `with clock.running():`."""

    seconds: float
    spent: float = 0.0

    @property
    def is_over(self) -> bool:
        """Whether nothing is left."""
        return self.spent >= self.seconds

    @contextmanager
    def running(self) -> Iterator[None]:
        """Count the time computed inside; what is asked there gets no more than is left."""
        begun = time.thread_time()
        try:
            with within(self.seconds - self.spent):
                yield
        finally:
            self.spent += time.thread_time() - begun


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """Leave what is judged inside so many seconds of computing, and no more than there are."""
    token = _until.set(min(_until.get(), time.thread_time() + seconds))
    try:
        yield
    finally:
        _until.reset(token)


def left(most: float) -> float:
    """Return the seconds that may be taken, at most `most`. Raises `TimeoutError` where none are.

    Without a clock that runs there are always `most`.
    """
    until = _until.get()
    if until == math.inf:
        return most
    seconds = min(most, until - time.thread_time())
    if seconds <= 0:
        raise TimeoutError(OVER)
    return seconds
