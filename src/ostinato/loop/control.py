"""What a loop is asked for while it runs, by its owner or from outside: pause, stop, change.

Requests wait for the next step boundary. Knows no process but through its `Changes`.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from ostinato.journal import RunSession, StopKind, Stopped
from ostinato.loop.edit_log import EditLog


class StopRequest(NamedTuple):
    """An end that was asked for: why, and the status that the run has then."""

    stopped: Stopped
    status: Literal["paused", "stopped"]


class ControlRequests:
    """The requests that wait: `ends` are pairs of what to do and the reason, in their order."""

    def __init__(self) -> None:
        self.ends: list[tuple[str, str]] = []

    def apply(self, changes: EditLog, tick: int, session: RunSession | None) -> StopRequest | None:
        """Apply the edits that wait, here and in the journal; return the end that was asked for."""
        changes.apply_asked(tick, session)
        for request in session.requests() if session is not None else ():
            assert session is not None
            if request.action == "change":
                changes.apply(request.edits or {}, tick, session, request)
            else:
                self.ends.append(
                    (request.action, f"It was asked to {request.action} from outside.")
                )
                session.done(request)
        if not self.ends:
            return None
        action, reason = self.ends[0]
        self.ends.clear()
        stopped = Stopped(StopKind.PERSON, reason, action, {"tick": tick})
        return StopRequest(stopped, "paused" if action == "pause" else "stopped")
