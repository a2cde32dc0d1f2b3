"""The thread that writes a run's journal, and the queue before it.

The driving thread appends to `pending` (steps) and `writes` (all else). It waits only where the
queue is full, or where it calls `flush`. Only the writing thread takes from them.
"""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from pathlib import Path
from weakref import WeakSet

from ostinato.errors import OstinatoError, RunError
from ostinato.journal.encoding import Entry
from ostinato.journal.lock import RunLock
from ostinato.journal.records import ControlRequest
from ostinato.journal.sqlite.tables import Progress, RunTables, Write

INTERVAL = 0.2
"""Seconds between two looks at the requests of other processes while no step comes.

So a pause from outside waits no longer.
"""

LINGER = 0.01
"""Seconds that the writing thread waits for more steps after the first one.

So a step can be read by others soon, a killed run loses at most the steps of this time, and a fast
loop still commits many steps at once.
"""

MAX_PENDING = 4096
"""Steps that may wait. With more, the driving thread wakes the writing thread and waits for it.

Waiting costs nothing where it happens: steps that come so fast compute in Python, and two threads
of Python take turns anyway. Handing over in large pieces saves the switches between them.
"""

CLOSED = (
    "The run's journal is closed. Open the run again to continue: journal.drive(journal.get(name))"
)


class WriterThread:
    """The queue and its thread.

    `room` is the number of waiting steps at which the driving thread calls `attend`, so that a step
    costs the loop one comparison: 1 while this thread sleeps, many while it is awake, 0 as soon as
    there is an error to raise.
    """

    def __init__(self, path: Path, run: str, folder: Path, lock: RunLock, *, records: bool) -> None:
        self.pending: list[Entry] = []
        self.writes: list[tuple[int, Write]] = []
        self.inbox: list[ControlRequest] = []
        self.progress: Progress | None = None
        self.room = MAX_PENDING
        self.error: Exception | None = None
        self.differences = 0
        self.resumed_ticks = 0
        self.closed = False
        self._records = records
        self._taken = 0  # steps that have left `pending`
        self._written: Progress | None = None
        self._path, self._run, self._folder, self._lock = path, run, folder, lock
        self._pid = os.getpid()
        self._mutex = threading.RLock()
        # Apart, so that of many threads that wait for a commit none wakes for another's request.
        self._work_to_do = threading.Condition(self._mutex)
        self._work_done = threading.Condition(self._mutex)
        self._flushes_requested = self._flushes_done = 0
        self._to_sync = False  # whether one of `writes` must be on the disk when it is committed
        self._closing = False
        self._writing = threading.Lock()  # held by the thread that uses the store
        self._store: RunTables | None = None
        self._failed: Exception | None = None  # what writing raised in another thread
        self._opened = threading.Event()
        # A daemon: a session that nobody closed must not keep the program alive. Its finalizer
        # writes what is left.
        self._thread = threading.Thread(target=self._work, name=f"journal of {run}", daemon=True)
        self._thread.start()
        # SQLite opens and migrates in that thread: what fails there is raised here, at once.
        self._opened.wait()
        self.raise_error()
        _WRITERS.add(self)

    # The driving thread -----------------------------------------------------------------------

    @property
    def tick(self) -> int:
        """The tick of the last step that was put, or that earlier sessions committed."""
        return self.resumed_ticks if self.progress is None else self.progress[0]

    def put(self, write: Write) -> None:
        """Add something to the next transaction, after the steps that were put before."""
        with self._mutex:
            self._put(write)

    def _put(self, write: Write, *, synced: bool = True) -> None:
        self.raise_error()
        self._to_sync = self._to_sync or synced
        self.writes.append((self._taken + len(self.pending), write))

    def commit(self, write: Write, *, synced: bool = True) -> None:
        """Add something to the next transaction and wait for it, with whoever waits meanwhile.

        What is not `synced` survives the death of the process, and a loss of power only once
        something else is synced.
        """
        with self._mutex:
            self._put(write, synced=synced)
            number = self._request_flush()
        self._flushed(number)

    def raise_error(self) -> None:
        """Raise the error of the writing thread; every later call raises it, too."""
        if self.error is not None:
            raise self.error

    def attend(self) -> None:
        """Wake this thread for the first of some steps; wait for it where too many are waiting."""
        if len(self.pending) >= MAX_PENDING or self.error is not None:
            self.flush()
            return
        with self._mutex:
            self._work_to_do.notify()

    def flush(self) -> None:
        """Wait until everything that was put before is committed."""
        with self._mutex:
            self.raise_error()
            number = self._request_flush()
        self._flushed(number)

    def _request_flush(self) -> int:
        self._flushes_requested += 1
        return self._flushes_requested

    def _flushed(self, number: int) -> None:
        """Return when a flush that was requested is done: here, unless another thread writes.

        To hand a single write over to the writing thread would take half as long again.
        """
        if self._writing.acquire(blocking=False):
            try:
                if self._store is not None:
                    self._write_all(self._store)
                    self._end_flush(number)
                    return
            except Exception as error:
                self._failed = error  # the writing thread raises it, and ends
            finally:
                self._writing.release()
        with self._mutex:
            self._work_to_do.notify()
            while self._flushes_done < number and self.error is None:
                self._work_done.wait()
            # What was asked for is committed, even if the thread has ended since.
            if self._flushes_done < number:
                self.raise_error()

    def _end_flush(self, number: int) -> None:
        with self._mutex:
            self._flushes_done = max(self._flushes_done, number)
            self._work_done.notify_all()

    def remove_from_inbox(self, request: ControlRequest) -> None:
        """Take a fulfilled request out of the inbox, if it is still there."""
        with suppress(ValueError):
            self.inbox.remove(request)

    def close(self) -> None:
        """Write the rest, end the thread and release the run. Safe to call twice."""
        if os.getpid() != self._pid:
            return
        with self._mutex:
            self._closing = True
            self._work_to_do.notify()
        # A session can be collected, and closed, while this very thread runs.
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def leave_in_child(self) -> None:
        """In a forked child: the run stays the parent's, and its connection is not touched."""
        self._lock.leave_in_child()
        self.error = RunError(
            "A forked process cannot drive the run that its parent drives. "
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
                store.commit((), None, [(0, RunTables.forget_old_requests)])
                self._look_for_requests(store)
                self._store = store
                self._opened.set()
                self._until_closed(store)
                self.error, self.closed = RunError(CLOSED), True
            finally:
                with self._writing:
                    self._store = None
                    store.connection.close()
        except Exception as error:
            self.error = self._explain(error)
        finally:
            self.room = 0
            self._lock.release()
            self._opened.set()
            with self._mutex:
                self._work_done.notify_all()

    def _until_closed(self, store: RunTables) -> None:
        while True:
            with self._mutex:
                self._wait()
                closing, requested = self._closing, self._flushes_requested
            if self._failed is not None:
                raise self._failed
            with self._writing:
                self._write_all(store)
                self._look_for_requests(store)
            self._end_flush(requested)
            if closing:
                return

    def _wait(self) -> None:
        """Sleep until something is to be written, then a little longer for what follows it."""
        if self._is_urgent():
            return
        self.room = 1  # the next step wakes this thread: it looks at `room` after it was appended
        if not self.pending:
            self._work_to_do.wait(INTERVAL)
        self.room = MAX_PENDING
        if self.pending and not self._is_urgent():
            self._work_to_do.wait(LINGER)

    def _is_urgent(self) -> bool:
        waiting = self._flushes_requested != self._flushes_done
        return self._closing or waiting or self._failed is not None

    def _write_all(self, store: RunTables) -> None:
        """Write what is there; it leaves the lists only when it is committed.

        The driving thread appends meanwhile, without a lock: so the writes are copied first, and
        the steps after them. A result then never gets committed without the steps before it.
        """
        with self._mutex:
            writes, synced, self._to_sync = self.writes[:], self._to_sync, False
        steps = self.pending[:]
        progress = self._newest(steps)
        if not (writes or steps or progress):
            return
        ordered = [(count - self._taken, write) for count, write in writes]
        store.commit(steps, progress, ordered, synced=synced)
        with self._mutex:
            del self.writes[: len(writes)]
            del self.pending[: len(steps)]
            self._taken += len(steps)
        self._written = progress or self._written
        self.differences = store.differences

    def _newest(self, steps: list[Entry]) -> Progress | None:
        if self._records:
            return steps[-1][:2] if steps else None
        return self.progress if self.progress != self._written else None

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


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_after_fork)
