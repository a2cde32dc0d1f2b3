"""Between the threads of flows and the one thread that computes: requests, and what waits for them.

Knows no model.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

T = TypeVar("T")


class Suspended(BaseException):
    """Unwinds a flow that cannot go on now: it waits for a person, or its run pauses.

    No error, so that `except Exception` in a flow lets it through.
    """


class Hub:
    """Takes work from flows, which wait for it, and hands it to the computing thread.

    `running` is how many threads of flows are neither waiting for such work nor ended.
    """

    def __init__(self) -> None:
        self.running = 0
        self._work: deque[tuple[object, Future[Any]]] = deque()
        self._waiting: set[Future[Any]] = set()
        self._changed = threading.Condition()
        self.closing = False  # no new call is made; those in progress may end
        self._closed = threading.Event()

    # The threads of flows ---------------------------------------------------------------------

    def submit(self, work: object) -> Any:
        """Hand work to the computing thread and wait for it. Raises `Suspended` at the end."""
        return self.wait(self.put(work))

    def put(self, work: object) -> Future[Any]:
        """Hand work to the computing thread."""
        future: Future[Any] = Future()
        with self._changed:
            if self.closing:
                raise Suspended
            self._work.append((work, future))
            self._waiting.add(future)
            self._changed.notify_all()
        return future

    def wait(self, future: Future[T]) -> T:
        """Wait for what the computing thread makes, or another branch."""
        self.ended()
        try:
            return future.result()
        finally:
            with self._changed:
                self._waiting.discard(future)
                self.running += 1

    def sleep(self, seconds: float) -> None:
        """Wait for some time, or until the run ends. Raises `Suspended` then."""
        self.ended()
        try:
            if self._closed.wait(seconds):
                raise Suspended
        finally:
            self.began()

    def began(self) -> None:
        """Count a thread that runs."""
        with self._changed:
            self.running += 1

    def ended(self) -> None:
        """Count a thread that runs no longer."""
        with self._changed:
            self.running -= 1
            self._changed.notify_all()

    # The computing thread ---------------------------------------------------------------------

    def take(self) -> list[tuple[object, Future[Any]]]:
        """Return the work that has come in."""
        with self._changed:
            taken = list(self._work)
            self._work.clear()
        return taken

    def settle(self, seconds: float) -> None:
        """Wait until no flow runs, or for so long: so that what follows is there at once."""
        with self._changed:
            self._changed.wait_for(lambda: self.running <= 0 or self._closed.is_set(), seconds)

    def look(self, seconds: float, or_when: Callable[[], bool]) -> None:
        """Wait for work, or until `or_when()`, but no longer than that."""
        with self._changed:
            self._changed.wait_for(
                lambda: self._work or or_when() or self._closed.is_set(), seconds
            )

    def require_open(self) -> None:
        """Raise `Suspended` where no new call is to be made."""
        if self.closing:
            raise Suspended

    def close(self, seconds: float = 0.0) -> None:
        """Unwind all flows that wait; those within a step have so long to end it."""
        self.closing = True
        with self._changed:
            waiting = [*self._waiting, *(future for _, future in self._work)]
            self._work.clear()
        for future in waiting:
            if not future.done():
                future.set_exception(Suspended())
        self.settle(seconds)
        with self._changed:
            self._closed.set()
            self._changed.notify_all()

    def require_unclosed(self) -> None:
        """Raise `Suspended` where nothing can be recorded any more."""
        if self._closed.is_set():
            raise Suspended
