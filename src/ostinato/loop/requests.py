"""What a loop is asked for while it runs, by its owner or from outside: pause, stop, change.

Requests wait for the next step boundary. Knows no process but through its `Changes`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

from ostinato.loop.changes import Changes
from ostinato.loop.stops import Kind, Stopped

if TYPE_CHECKING:
    from ostinato.loop.driver import Driver


class Asked(NamedTuple):
    """An end that was asked for: why, and the status that the run has then."""

    stopped: Stopped
    status: Literal["paused", "stopped"]


class Requests:
    """The requests that wait: `ends` are pairs of what to do and the reason, in their order."""

    def __init__(self) -> None:
        self.ends: list[tuple[str, str]] = []

    def attend(self, changes: Changes, tick: int, driver: Driver | None) -> Asked | None:
        """Apply the edits that wait, here and in the journal; return the end that was asked for."""
        changes.apply_asked(tick, driver)
        for request in driver.requests() if driver is not None else ():
            assert driver is not None
            if request.action == "change":
                changes.apply(request.edits or {}, tick, driver, request)
            else:
                self.ends.append(
                    (request.action, f"It was asked to {request.action} from outside.")
                )
                driver.done(request)
        if not self.ends:
            return None
        action, reason = self.ends[0]
        self.ends.clear()
        stopped = Stopped(Kind.PERSON, reason, action, {"tick": tick})
        return Asked(stopped, "paused" if action == "pause" else "stopped")
