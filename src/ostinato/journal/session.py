"""The only writer of a run: what a loop calls after every step.

Knows no loop and no process. What it takes is written by the thread of `writer`.
"""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ostinato.errors import InputError
from ostinato.journal.artifacts.artifact import collecting, folder_of
from ostinato.journal.artifacts.tables import files_without_rows, remove_files
from ostinato.journal.calls import DurableCalls
from ostinato.journal.creation import amend_spec
from ostinato.journal.encoding import encode, encode_exactly
from ostinato.journal.lock import RunLock
from ostinato.journal.records import ControlRequest, Keep
from ostinato.journal.run import Run
from ostinato.journal.sqlite.tables import RunTables, Write
from ostinato.journal.state.checkpoint import save_state
from ostinato.journal.stops import JSON, Stopped
from ostinato.journal.writer import WriterThread

ENDS = ("paused", "waiting", "interrupted", "stopped", "error")


class RunSession:
    """Writes one run, as long as it holds the run's lock. A context manager.

    `edits` holds those of a branch until they are applied; set it to None then, and the next
    checkpoint records that. `resumed_ticks` is the last tick that earlier sessions committed:
    steps up to it are compared with the recorded ones. An error of the writing thread (`RunError`)
    is raised at the next call of any method.
    """

    def __init__(self, run: Run, keep: Keep = "steps") -> None:
        # Before the lock is taken: a wrong argument must not leave the run locked.
        if keep not in ("steps", "results"):
            raise InputError(f"keep must be 'steps' or 'results', got {keep!r}.")
        self.run = run
        self._records = keep == "steps"
        lock = RunLock(run.folder / "lock", run.name, run.database.path)
        try:
            _sweep(run)
            edits = run.pending_edits
            self._writer = WriterThread(
                run.database.path, run.id, run.folder, lock, records=self._records
            )
        except BaseException:
            lock.release()
            raise
        self.edits: dict[str, object] | None = edits
        self.resumed_ticks = self._writer.resumed_ticks
        self._calls = DurableCalls(run, self._writer)
        # A session that is forgotten (a `break`, a notebook's cell) releases the run when it is
        # collected. What is left at the end of the process is written then.
        self._close = weakref.finalize(self, self._writer.close)

    def __enter__(self) -> RunSession:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()

    @property
    def differences(self) -> int:
        """How many steps and results differ from the recorded ones."""
        return self._writer.differences

    # At every step ----------------------------------------------------------------------------

    def step(self, tick: int, position: int, report: Mapping[str, object]) -> None:
        """Record a step. The report must not be changed afterwards."""
        writer = self._writer
        # No lock and no copy: appending to a list is atomic, and the thread takes from its front.
        writer.progress = (tick, position)
        if self._records:
            writer.pending.append((tick, position, report))
        if len(writer.pending) >= writer.room:
            writer.attend()

    @property
    def inbox(self) -> list[ControlRequest]:
        """The requests that are not `done` yet: always the same list, to which others append."""
        return self._writer.inbox

    def amend(self, entries: Mapping[str, JSON]) -> None:
        """Record entries in the run's spec, replacing those of the same names."""
        amend_spec(self.run, entries)

    # Now and then -----------------------------------------------------------------------------

    def event(
        self,
        name: str,
        tick: int,
        data: Mapping[str, object],
        request: ControlRequest | None = None,
    ) -> None:
        """Append an event to the log; with it, in one transaction, `request` is done.

        An event that an earlier session recorded at this tick is not recorded again.
        """
        tensors: list[Any] = []
        text = encode_exactly(data, f"The data of the event {name!r}", collecting(tensors))
        number = None if request is None else request.number
        self._writer.put(lambda store: store.add_event_once(name, tick, text, number, tensors))
        if request is not None:
            self._writer.remove_from_inbox(request)

    def result(self, key: str, row: Mapping[str, object]) -> None:
        """Record a result once, in one transaction with the steps before it.

        Show it to nobody before `flush` has returned. A second one with the same key is compared
        with the first, which stays.
        """
        tensors: list[Any] = []
        text = encode_exactly(row, f"The result {key!r}", collecting(tensors))
        tick = self._writer.tick
        self._writer.put(lambda store: store.add_result(key, tick, text, row, tensors))

    def checkpoint(
        self,
        tick: int,
        position: int,
        state: Mapping[str, object],
        keep: int = 3,
        needed: Sequence[int] = (),
    ) -> None:
        """Save a state, and drop those before the last `keep`, the ticks `needed` excepted.

        The file is on the disk before its row is committed, in one transaction with all steps
        before it: a crash at any instant leaves this checkpoint whole, or the one before it.
        Raises `InputError` where the state holds what cannot be saved exactly.
        """
        self._writer.put(self._saved(tick, position, state, keep, needed))
        self._writer.flush()

    def _saved(
        self,
        tick: int,
        position: int,
        state: Mapping[str, object],
        keep: int,
        needed: Sequence[int],
    ) -> Write:
        """Write a state's file; return what adds its row."""
        if keep < 1:
            raise InputError(f"keep must be at least 1, got {keep}.")
        self._writer.raise_error()
        # A name is never used again: a reader that has just read the row finds this file or none.
        file = f"{tick:012d}-{time.time_ns():x}.safetensors"
        tensors: list[Any] = []
        saved = save_state(self.run.folder / file, state, artifacts=tensors)
        row = (tick, position, file, saved.bytes, saved.crc)
        applied, ticks = self.edits is None, tuple(needed)
        return lambda store: store.add_checkpoint(row, keep, ticks, applied, tensors)

    def done(self, request: ControlRequest, answer: JSON = None, error: str | None = None) -> None:
        """Mark a request of another process as done, with an answer to it, or what was wrong."""
        number = request.number
        assert number is not None
        text = None if answer is None else encode(answer)
        self._writer.put(lambda store: store.done(number, text, error))
        self._writer.remove_from_inbox(request)

    def flush(self) -> None:
        """Wait until all is committed; what came with a result or event is on the disk, too."""
        self._writer.flush()

    def finish(
        self,
        status: str,
        stopped: Stopped | None,
        tick: int,
        position: int,
        state: Mapping[str, object] | None = None,
        keep: int = 3,
        needed: Sequence[int] = (),
    ) -> None:
        """Record how this session ends: "paused", "waiting", "interrupted", "stopped" or "error".

        `state` is its last checkpoint, in the same transaction: after a crash between the two, a
        run at its end would take another step.
        """
        if status not in ENDS:
            raise InputError(f"The status must be one of {', '.join(ENDS)}, got {status!r}.")
        text = None if stopped is None else encode(stopped)
        saved = None if state is None else self._saved(tick, position, state, keep, needed)

        def end(store: RunTables) -> None:
            if saved is not None:
                saved(store)
            store.finish(status, text, (tick, position))

        self._writer.put(end)
        self._writer.flush()

    # Calls: by any number of threads at once ---------------------------------------------------

    def call(
        self,
        path: str,
        function: Callable[..., object],
        arguments: Mapping[str, object] | None = None,
        *,
        record_errors: bool = False,
    ) -> JSON:
        """Call `function(**arguments)` once for each path, and return its answer.

        The answer is on the disk when this returns; a resumed run gets the recorded one, as JSON
        holds it. What the function raises is raised again, and the call is made again when the run
        is resumed; with `record_errors`, it is recorded in place of an answer and becomes a
        `CallError` now and then. Raises `RunError` where the path was recorded with other
        arguments, `InputError` where JSON cannot hold the arguments or the answer.
        """
        return self._calls.call(path, function, arguments or {}, record_errors=record_errors)

    def record_call(
        self,
        path: str,
        arguments: str,
        answer: object,
        *,
        error: str | None = None,
        synced: bool = True,
        late: bool = False,
    ) -> JSON:
        """Record the answer of a call that was made, and return it as a resumed run gets it.

        For who makes many calls and knows which paths have none yet. `arguments` is their JSON
        text. With an `error`, the answer is what is known of it. What is not `synced` survives the
        death of the process at once, and a loss of power only once something else is synced.
        `late`: the run has paused or stopped meanwhile, and stays so.
        """
        return self._calls.record(path, arguments, answer, error, synced=synced, late=late)

    def call_run(
        self,
        path: str,
        function: Callable[[Run], object],
        *,
        kind: str,
        spec: Mapping[str, JSON] | None = None,
        name: str | None = None,
    ) -> JSON:
        """Make a run that this one calls, hand it to `function`, and return its answer, once.

        A resumed run hands over the same run while there is no answer. `name` is that of the new
        run; by default it is made of this run's name and the path. Raises as `call` does.
        """
        return self._calls.call_run(path, function, kind=kind, spec=spec or {}, name=name)

    def ask(
        self,
        path: str,
        question: str,
        *,
        options: Sequence[str] = (),
        seconds: float | None = None,
    ) -> JSON:
        """Ask a person, once for each path, and return the answer; the run is `waiting` until then.

        `Journal.answer` and `ostinato runs answer` give it; `options` are the only answers, if
        there are any. Waits for `seconds`, by default for ever. Raises `Unanswered` where there is
        none by then, and where the run is to pause or stop: the question stays open.
        """
        return self._calls.ask(path, question, options, seconds)

    # The end ----------------------------------------------------------------------------------

    def reopen(self) -> None:
        """Record that the run continues after `finish`; a step records it too."""
        progress = self._writer.progress or (self.run.tick, self.run.position)
        self._writer.put(lambda store: store.record_progress(progress, progress[0]))
        self._writer.flush()

    def close(self) -> None:
        """Write what is left and release the run. Raises what went wrong while writing."""
        if self._close.alive:
            self._writer.raise_error()
            self._close()
            if not self._writer.closed:
                self._writer.raise_error()


def _sweep(run: Run) -> None:
    """Remove the files without a row, which a killed session left."""
    known = {row.path for row in run.checkpoints()}
    for path in [*run.folder.glob("*.safetensors"), *run.folder.glob(".*.tmp")]:
        if path not in known:
            path.unlink(missing_ok=True)
    remove_files(folder_of(run.database.path), files_without_rows(run.database, run.id))
