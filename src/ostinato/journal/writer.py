"""The thread that writes a run's journal, and the queue before it.

The driving thread appends to `pending` (steps) and `writes` (all else) and never waits, except
where the queue is full or where it asks to (`flush`). Only this thread takes from them.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path
from weakref import WeakSet

from ostinato.errors import OstinatoError, RunError
from ostinato.journal.encoding import Entry
from ostinato.journal.lock import RunLock
from ostinato.journal.tables import ControlRequest, Place, RunTables, Write

INTERVAL = 0.2
"""Seconds between two looks at the queue and at the requests of other processes."""

CROWD = 4096
"""So many steps waiting wake the thread and are waited for: this bounds the queue.

Waiting costs nothing where it happens: steps that come so fast compute in Python, and two threads
of Python take turns anyway. Handing over in large pieces saves the switches between them.
"""

CLOSED = (
    "The run's journal is closed. Open the run again to go on: journal.drive(journal.get(name))"
)


class WriterThread:
    """The queue and its thread.

    `room` is how many steps may wait before the driving thread waits for this one; 0 as soon as
    there is an error to raise, so that the loop's one comparison a step finds both.
    """

    def __init__(self, path: Path, run: str, folder: Path, lock: RunLock, *, records: bool) -> None:
        self.pending: list[Entry] = []
        self.writes: list[Write] = []
        self.inbox: list[ControlRequest] = []
        self.place: Place | None = None
        self.room = CROWD
        self.error: Exception | None = None
        self.differences = 0
        self.resumed_ticks = 0
        self.closed = False
        self._records = records
        self._written: Place | None = None
        self._path, self._run, self._folder, self._lock = path, run, folder, lock
        self._pid = os.getpid()
        self._condition = threading.Condition()
        self._asked = self._answered = 0
        self._closing = False
        self._opened = threading.Event()
        self._thread = threading.Thread(target=self._work, name=f"journal of {run}", daemon=True)
        self._thread.start()
        # SQLite opens and migrates in that thread: what fails there is raised here, at once.
        self._opened.wait()
        self.raise_error()
        _WRITERS.add(self)

    # The driving thread -----------------------------------------------------------------------

    def put(self, write: Write) -> None:
        """Add something to the next transaction."""
        self.raise_error()
        self.writes.append(write)

    def raise_error(self) -> None:
        """Raise what went wrong in the thread; every later call raises it, too."""
        if self.error is not None:
            raise self.error

    def flush(self) -> None:
        """Wait until everything that was put before is committed."""
        self.raise_error()
        with self._condition:
            self._asked += 1
            number = self._asked
            self._condition.notify_all()
            while self._answered < number and self.error is None:
                self._condition.wait()
        self.raise_error()

    def hand_over(self, request: ControlRequest) -> None:
        """Take a fulfilled request out of the inbox."""
        self.inbox.remove(request)

    def close(self) -> None:
        """Write the rest, end the thread and release the run. Safe to call twice."""
        if os.getpid() != self._pid:
            return
        with self._condition:
            self._closing = True
            self._condition.notify_all()
        # A session can be collected, and closed, while this very thread runs.
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def leave_in_child(self) -> None:
        """In a forked child: the run stays the parent's, and its connection is not touched."""
        self._lock.leave_in_child()
        self.error = RunError(
            "A forked process cannot go on with the run that its parent drives. "
            "Open another run in the child."
        )
        self.room = 0
        _OF_PARENT.append(self)

    # The writing thread -----------------------------------------------------------------------

    def _work(self) -> None:
        try:
            store = RunTables(self._path, self._run, self._folder)
            try:
                self.resumed_ticks = store.resumed_ticks
                store.commit((), None, [RunTables.forget_old_requests])
                self._look_for_requests(store)
                self._opened.set()
                self._until_closed(store)
                self.error, self.closed = RunError(CLOSED), True
            finally:
                store.connection.close()
        except Exception as error:
            self.error = self._explain(error)
        finally:
            self.room = 0
            self._lock.release()
            self._opened.set()
            with self._condition:
                self._condition.notify_all()

    def _until_closed(self, store: RunTables) -> None:
        while True:
            with self._condition:
                if not self._closing and self._asked == self._answered:
                    self._condition.wait(INTERVAL)
                closing, asked = self._closing, self._asked
            self._write_all(store)
            self._look_for_requests(store)
            with self._condition:
                self._answered = asked
                self._condition.notify_all()
            if closing:
                return

    def _write_all(self, store: RunTables) -> None:
        """Write what is there; it leaves the lists only when it is committed.

        The driving thread appends meanwhile, without a lock: so the writes are copied first, and
        the steps after them. A result then never gets committed without the steps before it.
        """
        writes = self.writes[:]
        steps = self.pending[:]
        place = self._newest(steps)
        if not (writes or steps or place):
            return
        store.commit(steps, place, writes)
        del self.writes[: len(writes)]
        del self.pending[: len(steps)]
        self._written = place or self._written
        self.differences = store.differences

    def _newest(self, steps: list[Entry]) -> Place | None:
        if self._records:
            return steps[-1][:2] if steps else None
        return self.place if self.place != self._written else None

    def _look_for_requests(self, store: RunTables) -> None:
        self.inbox.extend(store.new_requests())

    def _explain(self, error: Exception) -> Exception:
        if isinstance(error, OstinatoError):
            return error
        explained = RunError(
            f"The journal {self._path} could not be written: {error}. What was acknowledged is "
            "there; make room or end what locks it, and resume the run."
        )
        explained.__cause__ = error
        return explained


_WRITERS: WeakSet[WriterThread] = WeakSet()
_OF_PARENT: list[WriterThread] = []  # so that no child closes a connection of its parent


def _after_fork() -> None:
    for writer in list(_WRITERS):
        writer.leave_in_child()


os.register_at_fork(after_in_child=_after_fork)
