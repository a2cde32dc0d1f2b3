"""What the driver of a run writes into the tables: one object for one run and one connection.

Knows no threads. A resumed run computes the steps after its last checkpoint again: what is recorded
already is compared with them, and not written again.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from ostinato.journal.artifacts.tables import ArtifactWriter
from ostinato.journal.encoding import Entry, decode, differences, encode
from ostinato.journal.fields import as_object
from ostinato.journal.records import Answered, ControlRequest
from ostinato.journal.sqlite.columns import decode_block, encode_block
from ostinato.journal.sqlite.connection import connect, sync_at_commit, sync_lazily, transaction

BLOCK = 2048
"""Steps in one row of the table `steps`, at most: resume keeps one such row in memory."""

LARGEST_ROW = 1 << 24
"""Characters of such a row, at most, unless it is one step: SQLite takes no more than 10^9."""

Progress = tuple[int, int]
"""How far a run is: tick and position."""


ANSWERED = (
    "NOT EXISTS (SELECT 1 FROM requests WHERE run = runs.id AND action = 'ask' AND done IS NULL)"
)
"""SQL: no question of a run is open."""


@dataclass(slots=True)
class Recorded:
    """The steps that are in the journal already; one block of them is in memory at a time."""

    connection: sqlite3.Connection
    run: str
    _first: int = 0
    _last: int = -1
    _block: dict[int, Entry] = field(default_factory=dict)

    def find(self, tick: int) -> Entry | None:
        """Return the recorded step, or None where there is none."""
        if not self._first <= tick <= self._last:
            self._read(tick)
        return self._block.get(tick)

    def _read(self, tick: int) -> None:
        row = self.connection.execute(
            "SELECT first, last, data FROM steps WHERE run = ? AND first <= ? "
            "ORDER BY first DESC LIMIT 1",
            (self.run, tick),
        ).fetchone()
        if row is not None:
            self._first, self._last = row[0], row[1]
            self._block = {entry[0]: entry for entry in decode_block(row[2])}


class RunTables:
    """Writes one run.

    `commit` opens the transaction; all other methods that write are called by its `writes`.
    """

    def __init__(self, path: Path, run: str, folder: Path) -> None:
        self.connection = connect(path, to_write=True)
        self.run = run
        self.folder = folder
        self.differences = 0
        self._version = -1  # differs from any, so that the first look reads the requests
        self._seen = 0
        self._running = self._waiting = False
        self._recorded = Recorded(self.connection, run)
        self._unlink: list[Path] = []
        self._added = 0  # bytes of rows in this transaction
        self._artifacts = ArtifactWriter(self.connection, path, run)
        self.resumed_ticks, self._first_seq, self._last_step = self._read_progress()
        self._seq = self._first_seq  # the last number that is given

    def _read_progress(self) -> tuple[int, int, int]:
        row = self.connection.execute(
            "SELECT tick, seq, (SELECT COALESCE(MAX(last), 0) FROM steps WHERE run = id) "
            "FROM runs WHERE id = ?",
            (self.run,),
        ).fetchone()
        return row[0], row[1], row[2]

    def commit(
        self,
        steps: Sequence[Entry],
        progress: Progress | None,
        writes: Sequence[tuple[int, Write]],
        *,
        synced: bool = True,
    ) -> None:
        """Write steps, the run's progress and all writes in one transaction, in their order.

        With each write comes the number of `steps` before it. `synced`: writes are on the disk
        when this returns.
        """
        running, waiting = self._running, self._waiting
        # Steps can be computed again, so their commits do not wait for the disk. Results, events
        # and checkpoints are acknowledged to somebody: theirs do.
        to_sync = bool(writes) and synced
        if to_sync:
            sync_at_commit(self.connection)
        try:
            with transaction(self.connection):
                before = self._read_seq()
                if progress is not None:
                    self.record_progress(progress, steps[0][0] if steps else progress[0])
                written = 0
                for count, write in writes:
                    self._add_steps(steps[written:count])
                    written = count
                    write(self)
                self._add_steps(steps[written:])
                self._count(before)
        except BaseException:
            self._added = 0
            self._artifacts.end(committed=False)
            self._running, self._waiting = running, waiting
            self._unlink.clear()
            raise
        finally:
            if to_sync:
                sync_lazily(self.connection)
        self._artifacts.end(committed=True)
        # Only now: until the commit, a row still points to each of these files.
        for path in self._unlink:
            path.unlink(missing_ok=True)
        self._unlink.clear()

    def _read_seq(self) -> int:
        """Read the last number that is given: other processes give some, to notes and answers."""
        row = self.connection.execute("SELECT seq FROM runs WHERE id = ?", (self.run,)).fetchone()
        self._seq = self._first_seq if row is None else row[0]
        return self._seq

    def _next(self, count: int = 1) -> int:
        """Give the next numbers; return the first of them."""
        self._seq += count
        return self._seq - count + 1

    def _count(self, before: int) -> None:
        added = self._added + self._artifacts.added
        if self._seq != before or added:
            self.connection.execute(
                "UPDATE runs SET seq = ?, bytes = bytes + ? WHERE id = ?",
                (self._seq, added, self.run),
            )
            self._added = 0

    # Steps ------------------------------------------------------------------------------------

    def _add_steps(self, steps: Sequence[Entry]) -> None:
        known = 0  # how many of them are not after the last recorded step
        # After a resume the first steps are repetitions. A gap in what an earlier session recorded
        # (it ran with keep="results") is filled.
        while known < len(steps) and steps[known][0] <= self._last_step:
            if self._is_fresh(steps[known]):
                self._insert_block([steps[known]])
            known += 1
        for start in range(known, len(steps), BLOCK):
            self._insert_block(steps[start : start + BLOCK])

    def _insert_block(self, block: Sequence[Entry]) -> None:
        data = encode_block(block, partial(self._artifacts.encode, tick=block[0][0]))
        if len(data) > LARGEST_ROW and len(block) > 1:  # of large tensors
            half = len(block) // 2
            self._insert_block(block[:half])
            self._insert_block(block[half:])
            return
        self._added += len(data)  # ASCII
        first, last = block[0][0], block[-1][0]
        self.connection.execute(
            "INSERT INTO steps (run, first, last, seq, data) VALUES (?, ?, ?, ?, ?)",
            (self.run, first, last, self._next(last - first + 1), data),
        )

    def _is_fresh(self, entry: Entry) -> bool:
        tick, position, report = entry
        old = self._recorded.find(tick)
        if old is None:
            return True
        names = differences(old[2], report) + (["position"] if old[1] != position else [])
        if names:
            self.differs(tick, {"names": names})
        return False

    def differs(self, tick: int, what: Mapping[str, object]) -> None:
        """Record, once for each tick, that a repetition differs from what was recorded."""
        self.differences += 1
        found = self.connection.execute(
            "SELECT 1 FROM events WHERE run = ? AND tick = ? AND name = 'differs'",
            (self.run, tick),
        ).fetchone()
        if found is None:
            self.add_event("differs", tick, encode(what))

    def record_progress(self, progress: Progress, start: int) -> None:
        """Record that the run continues, and where it is; a tick never goes back."""
        tick, position = progress
        self._begin(start)
        if self._waiting:
            self.connection.execute("UPDATE runs SET status = 'running' WHERE id = ?", (self.run,))
            self._waiting = False
        # A resumed run repeats ticks that are committed: for readers its tick must not decrease.
        self.connection.execute(
            "UPDATE runs SET tick = ?, position = ?, updated = ? WHERE id = ? AND tick <= ?",
            (tick, position, time.time(), self.run, tick),
        )

    def _begin(self, tick: int) -> None:
        """Record that this session has begun to do something, if that is not recorded yet."""
        if not self._running:
            self._running = True
            self.connection.execute(
                "UPDATE runs SET status = 'running', stopped = NULL WHERE id = ?", (self.run,)
            )
            self.add_event("start", tick, "{}")

    # Everything else --------------------------------------------------------------------------

    def add_event(self, name: str, tick: int, data: str) -> None:
        """Append an event to the log; `data` is its JSON text."""
        self._added += len(data)
        self.connection.execute(
            "INSERT INTO events (run, seq, tick, name, data, created) VALUES (?, ?, ?, ?, ?, ?)",
            (self.run, self._next(), tick, name, data, time.time()),
        )

    def add_event_once(
        self,
        name: str,
        tick: int,
        data: str,
        request: int | None,
        tensors: Sequence[Any] = (),
    ) -> None:
        """Append an event, unless an earlier session recorded the same at the same tick.

        `tensors` are those that its data refers to.
        """
        if request is not None:
            self.done(request, encode({"tick": tick}), None)
        # `_first_seq` is that of the session's start: two equal events of this session are two.
        found = (
            tick <= self.resumed_ticks
            and self.connection.execute(
                "SELECT 1 FROM events WHERE run = ? AND seq <= ? AND tick = ? AND name = ? "
                "AND data = ?",
                (self.run, self._first_seq, tick, name, data),
            ).fetchone()
        )
        if not found:
            self._artifacts.add(tensors, tick, "event", text=data)
            self.add_event(name, tick, data)

    def add_result(
        self,
        key: str,
        tick: int,
        text: str,
        row: Mapping[str, object],
        tensors: Sequence[Any] = (),
    ) -> None:
        """Insert a result once; a second one of the same key is only compared with the first.

        `text` is the row as JSON, and `tensors` are those that it refers to.
        """
        old = self.connection.execute(
            "SELECT row FROM results WHERE run = ? AND key = ?", (self.run, key)
        ).fetchone()
        if old is None:
            self._artifacts.add(tensors, tick, "result", key, text)
            self._added += len(text)
            self.connection.execute(
                "INSERT INTO results (run, key, seq, tick, row, created) VALUES (?, ?, ?, ?, ?, ?)",
                (self.run, key, self._next(), tick, text, time.time()),
            )
        # Equal texts are the usual case, and need no parsing.
        elif old[0] != text and (names := differences(decode(old[0]), row)):
            self.differs(tick, {"result": key, "names": names})

    def add_checkpoint(
        self,
        row: Sequence[Any],
        keep: int,
        needed: Sequence[int],
        applied: bool,
        tensors: Sequence[Any] = (),
    ) -> None:
        """Add the row of a file, and drop those before the last `keep` that are not `needed`.

        `tensors` are those that the file refers to.
        """
        self._artifacts.add(tensors, row[0], "checkpoint")
        if applied:  # the edits of a branch are in this state
            self.connection.execute("UPDATE runs SET edits = NULL WHERE id = ?", (self.run,))
        # A repetition saves the same tick again, under another file name.
        self._drop("run = ? AND tick = ?", (self.run, row[0]))
        self.connection.execute(
            "INSERT INTO checkpoints (run, tick, position, file, bytes, crc, seq, created) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (self.run, *row, self._next(), time.time()),
        )
        self._drop(
            "run = ?1 AND tick NOT IN "
            "(SELECT tick FROM checkpoints WHERE run = ?1 ORDER BY tick DESC LIMIT ?2) "
            "AND tick NOT IN (SELECT value FROM json_each(?3))",
            (self.run, keep, encode(needed)),
        )
        self._release_artifacts()

    def _drop(self, which: str, values: tuple[object, ...]) -> None:
        rows = self.connection.execute(
            f"DELETE FROM checkpoints WHERE {which} RETURNING file", values
        ).fetchall()
        self._unlink.extend(self.folder / row[0] for row in rows)

    def _release_artifacts(self) -> None:
        """Drop the artifacts that only checkpoints referred to which are dropped now."""
        if self._unlink and self._artifacts.holds_for_checkpoints:
            kept = self.connection.execute(
                "SELECT file FROM checkpoints WHERE run = ?", (self.run,)
            ).fetchall()
            self._artifacts.release(self._unlink, [self.folder / row[0] for row in kept])

    def finish(self, status: str, stopped: str | None, progress: Progress) -> None:
        """Record how the run ended, or that it pauses; the recorded tick never decreases."""
        tick, position = progress
        status = self._settle_questions(status)
        # A session that ends while it repeats ticks leaves the later ones that are committed.
        self.connection.execute(
            "UPDATE runs SET status = ?, stopped = ?, tick = MAX(tick, ?), "
            "position = CASE WHEN tick <= ? THEN ? ELSE position END, updated = ? WHERE id = ?",
            (status, stopped, tick, tick, position, time.time(), self.run),
        )
        self.add_event("finish", tick, f'{{"status":"{status}","stopped":{stopped or "null"}}}')
        self._running = self._waiting = False

    def _settle_questions(self, status: str) -> str:
        """Return the status of a run that ends so: one that can be resumed waits where a question
        is open; one that has stopped asks nothing any more."""
        open_ones = "run = ? AND action = 'ask' AND done IS NULL"
        if status == "stopped":
            self.connection.execute(
                f"UPDATE requests SET done = ?, error = 'The run has stopped.' WHERE {open_ones}",
                (time.time(), self.run),
            )
        elif status != "error":
            waits = self.connection.execute(
                f"SELECT 1 FROM requests WHERE {open_ones}", (self.run,)
            ).fetchone()
            # It may have been answered at this moment.
            return "waiting" if waits else "paused" if status == "waiting" else status
        return status

    # Calls and questions ----------------------------------------------------------------------

    def add_call(self, call: Answered, tick: int, *, late: bool = False) -> None:
        """Record the answer of a call; `late`, of one that ends after its session has finished."""
        if not late:
            self._begin(tick)
        self._artifacts.add(call.tensors, tick, "call", call.path, call.answer or "")
        self._added += len(call.arguments) + len(call.answer or "")
        self.connection.execute(
            "INSERT INTO calls (run, path, seq, tick, arguments, answer, error, child, created) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                self.run,
                call.path,
                self._next(),
                tick,
                call.arguments,
                call.answer,
                call.error,
                call.child,
                time.time(),
            ),
        )

    def ask(self, path: str, tick: int, data: str) -> None:
        """Ask a person: the run waits. A question that is open already takes its new words."""
        self._begin(tick)
        found = self.connection.execute(
            "UPDATE requests SET data = ? WHERE run = ? AND action = 'ask' AND path = ? "
            "AND done IS NULL RETURNING number",
            (data, self.run, path),
        ).fetchone()
        if found is None:
            self.connection.execute(
                "INSERT INTO requests (run, action, path, data, created) "
                "VALUES (?, 'ask', ?, ?, ?)",
                (self.run, path, data, time.time()),
            )
            self.add_event("ask", tick, encode({"path": path, **decode(data)}))
        self._waiting = True
        self.connection.execute("UPDATE runs SET status = 'waiting' WHERE id = ?", (self.run,))

    def go_on(self) -> None:
        """Record that the run waits no longer, unless another question of it is open."""
        done = self.connection.execute(
            "UPDATE runs SET status = 'running' WHERE id = ? AND status IN ('waiting', 'running') "
            f"AND {ANSWERED}",
            (self.run,),
        )
        self._waiting = done.rowcount == 0

    # Requests ---------------------------------------------------------------------------------

    def new_requests(self) -> list[ControlRequest]:
        """Return the requests since the last call; cheap where no other process has written."""
        # `data_version` changes when another connection commits, and reading it touches no table.
        version = self.connection.execute("PRAGMA data_version").fetchone()[0]
        if version == self._version:
            return []
        self._version = version
        rows = self.connection.execute(
            "SELECT number, action, data FROM requests WHERE run = ? AND done IS NULL "
            "AND number > ? AND action <> 'ask' ORDER BY number",
            (self.run, self._seen),
        ).fetchall()
        if rows:
            self._seen = rows[-1][0]
        return [
            ControlRequest(row[0], row[1], row[2] and as_object(decode(row[2]))) for row in rows
        ]

    def done(self, number: int, answer: str | None, error: str | None) -> None:
        """Mark a request as done, with its answer or what was wrong; no later session reads it."""
        self.connection.execute(
            "UPDATE requests SET done = COALESCE(done, ?), answer = ?, error = ? WHERE number = ?",
            (time.time(), answer, error, number),
        )

    def forget_old_requests(self) -> None:
        """Drop a pause or a stop that was meant for an earlier session, which is gone."""
        self.connection.execute(
            "UPDATE requests SET done = ?, error = 'The session it was meant for had ended.' "
            "WHERE run = ? AND done IS NULL AND action IN ('pause', 'stop')",
            (time.time(), self.run),
        )


Write = Callable[[RunTables], None]
"""Something to write in a transaction: it calls methods of `RunTables`."""
