"""The requests that wait and those in work: what HTTP threads and the generating thread share."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from itertools import count
from typing import Any, Generic, Protocol, TypeVar

from ostinato.server.body_fields import RequestError

ENDING = "The server must be running to take requests, and is shutting down. Use another one."


class Queued(Protocol):
    """A request under a key of its own, which nobody waits for once it is `canceled`."""

    key: str
    canceled: bool

    @property
    def send(self) -> Callable[[Any], None]:
        """Sends an event to the client."""
        ...


R = TypeVar("R", bound=Queued)


class RequestQueue(Generic[R]):
    """Requests that are `waiting`, at most `max_waiting`, and `active` ones by key."""

    def __init__(self, max_waiting: int) -> None:
        self.active: dict[str, R] = {}
        self._max_waiting = max_waiting
        self.waiting: deque[R] = deque()
        self._changed = threading.Condition()
        self.closing = False
        # Unique for the life of the server, unlike a client's ids.
        self._numbers = count(1)

    def new_key(self) -> str:
        """Return a key that no other request has."""
        return str(next(self._numbers))

    def put(self, requests: Sequence[R]) -> None:
        """Let requests wait. Raises `RequestError` where too many do, and at the end."""
        with self._changed:
            if self.closing:
                raise RequestError(503, ENDING)
            waiting = sum(not request.canceled for request in self.waiting)
            if waiting + len(requests) > self._max_waiting:
                raise RequestError(
                    429,
                    f"At most {self._max_waiting} requests can wait, got {len(requests)} more with "
                    f"{waiting} waiting. Try again later.",
                    code="too_many_requests",
                )
            self.waiting += requests
            self._changed.notify_all()

    def take(self) -> tuple[str, R] | None:
        """Make the request that has waited longest active, and return it; None if none waits."""
        with self._changed:
            while self.waiting:
                request = self.waiting.popleft()
                if not request.canceled:
                    self.active[request.key] = request
                    return request.key, request
                request.send(RequestError(503, ENDING))
        return None

    def wait(self) -> bool:
        """Wait until a request waits; return False where none will come any more."""
        with self._changed:
            while not self.waiting and not self.closing:
                self._changed.wait()
            return bool(self.waiting)

    def fail_active(self, sentence: str) -> None:
        """End the active requests with an error of the server."""
        for key, request in list(self.active.items()):
            request.send(RequestError(500, sentence))
            del self.active[key]

    def close(self, *, at_once: bool) -> None:
        """Take no more requests; with `at_once`, cancel those that there are."""
        with self._changed:
            self.closing = True
            if at_once:
                for request in [*self.waiting, *self.active.values()]:
                    request.canceled = True
            self._changed.notify_all()
