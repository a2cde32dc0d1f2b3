"""The edits of a loop's process: journaled, then applied; on resume, applied again."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress

from ostinato.errors import EditError
from ostinato.journal import ControlRequest, Run, RunSession, encode, runs_command, with_tensors
from ostinato.loop.checkpoint_schedule import FOREVER
from ostinato.loop.process import Process


class EditLog:
    """Applies edits to a process at step boundaries.

    `count` is how many were applied since the run started. It is saved with a checkpoint: on
    resume, the journaled edits after it are applied again, each at its tick.
    """

    def __init__(self, process: Process) -> None:
        self.count = 0
        self._process = process
        self._replay: list[tuple[int, dict[str, object]]] = []
        self._replayed: list[tuple[int, str]] = []  # with the edits as JSON: tensors have no ==

    @property
    def waiting(self) -> int:
        """The tick of the next edit to apply again; `FOREVER` where there is none."""
        return self._replay[0][0] if self._replay else FOREVER

    def take(self, request: ControlRequest, tick: int, session: RunSession | None) -> None:
        """Apply the edits of a request.

        A program that runs again makes its own edits again: those that the journal has replayed at
        this tick are not applied twice.
        """
        edits = request.edits or {}
        # A number: the request is in the journal, which has only those that were not applied yet.
        if request.number is not None:
            self.apply(edits, tick, session, request)
        elif (again := (tick, encode(edits))) in self._replayed:
            self._replayed.remove(again)
        else:
            self.apply(edits, tick, session)

    def apply(
        self,
        edits: Mapping[str, object],
        tick: int,
        session: RunSession | None,
        request: ControlRequest | None = None,
    ) -> None:
        """Journal edits (and that a request is done, in the same transaction), then apply them.

        Edits from outside that the process refuses are journaled as refused; the run continues.
        """
        self.count += 1
        # Committed before it takes effect: after a crash, the edit is repeated at this tick.
        if session is not None:
            session.event("change", tick, dict(edits), request)
            session.flush()
        try:
            self._process.change(edits)
        except EditError as error:
            if session is not None:  # else its record says that they hold
                session.event("refused", tick, {"edits": dict(edits), "why": str(error)})
            if session is None or request is None:
                raise
            session.done(request, error=str(error))

    def start_branch(self, edits: Mapping[str, object], tick: int, session: RunSession) -> None:
        """Apply a branch's edits. Raises `EditError` with the fix for those that are refused."""
        self.count = 0
        if not edits:
            return
        try:
            self.apply(edits, tick, session)
        except EditError as error:
            run = session.run
            raise EditError(
                f"{error} The branch {run.name!r} cannot start. Delete it "
                f"({runs_command(run.database.path, 'delete', run.name)}), and make another with "
                "edits that can be applied there."
            ) from None

    def plan(self, run: Run) -> None:
        """Read the journaled edits after the saved state, to apply each at its tick."""
        changes = [event for event in run.events() if event.name == "change"]
        self._replay = [(event.tick, with_tensors(event.data)) for event in changes[self.count :]]

    def replay_up_to(self, tick: int) -> None:
        """Apply again the journaled edits up to a tick."""
        while self._replay and self._replay[0][0] <= tick:
            at, edits = self._replay.pop(0)
            self.count += 1
            self._replayed.append((at, encode(edits)))
            with suppress(EditError):  # refused then, refused again
                self._process.change(edits)
