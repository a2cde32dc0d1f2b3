"""Requests to a running loop, by its owner or from outside: pause, stop, change.

Each waits for the next step boundary. Knows no process but through its `EditLog`.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from ostinato.journal import ControlRequest, RunSession, StopKind, Stopped
from ostinato.loop.edit_log import EditLog
from ostinato.loop.timeline import Edits


class StopRequest(NamedTuple):
    """A requested end: why, and the status that the run has then."""

    stopped: Stopped
    status: Literal["paused", "stopped"]


class Control:
    """The requests that wait, in the order in which they came.

    `inbox` is one list for the life of the loop: others append to it, from any thread or a signal
    handler, and the loop asks only whether it is empty.
    """

    def __init__(self) -> None:
        self.inbox: list[ControlRequest] = []

    def connect(self, session: RunSession) -> None:
        """Share the inbox of a run, to which other processes write."""
        session.inbox.extend(self.inbox)
        self.inbox = session.inbox

    def request_end(self, action: Literal["pause", "stop"], reason: str) -> None:
        """Request an end at the next step boundary."""
        self.inbox.append(ControlRequest(None, action, reason=reason))

    def request_edits(self, edits: Edits) -> None:
        """Request edits at the next step boundary."""
        self.inbox.append(ControlRequest(None, "change", dict(edits)))

    def take(self, log: EditLog, tick: int, session: RunSession | None) -> StopRequest | None:
        """Empty the inbox: apply the edits, journaled first; return the first end, if one."""
        for request in [each for each in self.inbox if each.action == "change"]:
            if request.number is None:  # else it is done in the transaction that records it
                self.inbox.remove(request)  # before it is taken: what is refused is asked once
            log.take(request, tick, session)
        return self.take_end(tick, session)

    def take_end(self, tick: int, session: RunSession | None) -> StopRequest | None:
        """Take the requested ends out of the inbox; return the first, if there is one."""
        ends = [each for each in self.inbox if each.action != "change"]
        for request in ends:
            if request.number is None:
                self.inbox.remove(request)
            else:
                assert session is not None
                session.done(request, {"tick": tick})
        if not ends:
            return None
        action = ends[0].action
        reason = ends[0].reason or f"It was asked to {action} from outside."
        stopped = Stopped(StopKind.PERSON, reason, action, {"tick": tick})
        return StopRequest(stopped, "paused" if action == "pause" else "stopped")
