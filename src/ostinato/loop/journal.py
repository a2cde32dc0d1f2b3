"""The journal: the SQLite file that holds runs, and the folder with their checkpoints.

Knows no loop and no process. One process drives a run, any number may read.
"""

from __future__ import annotations

import os
import re
import shutil
import sqlite3
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from ostinato.errors import InputError, RunError
from ostinato.loop.encode import decode, encode_exactly
from ostinato.loop.lock import RunLock
from ostinato.loop.run import CheckpointRow, Run, check_edits
from ostinato.loop.schema import connect, migrate, transaction
from ostinato.loop.stops import JSON

DEFAULT = Path(".ostinato/journal.db")
SAFE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
SHORTEST_PREFIX = 6
ACTIONS = ("pause", "stop", "change")
_OF_PARENT: list[sqlite3.Connection] = []  # so that a forked child closes none of them


class Journal:
    """Opens a journal, and makes it where there is none. A context manager.

    Raises `RunError` for a file that is no journal, or one of a newer schema.
    """

    def __init__(self, path: str | Path = DEFAULT) -> None:
        self.path = Path(path).absolute()
        self._lock = threading.RLock()
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunError(
                f"The folder of the journal {self.path} must be one that can be made, got: "
                f"{error.strerror}. Name another with --journal."
            ) from None
        self._connection = connect(self.path)
        self._pid = os.getpid()
        try:
            migrate(self._connection, self.path)
        except BaseException:
            self._connection.close()
            raise

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; runs and drivers made from this journal keep theirs."""
        with self._lock:
            self._connection.close()

    # Runs -------------------------------------------------------------------------------------

    def create(
        self,
        name: str,
        *,
        kind: str,
        spec: Mapping[str, JSON] | None = None,
        parent: tuple[str, int] | None = None,
    ) -> Run:
        """Make a new run. Raises `RunError` where the name is taken or is no safe name."""
        _check_name(name)
        with self._lock, transaction(self._open()) as connection:
            return self._insert(connection, name, kind, spec or {}, parent)

    def find(self, name: str) -> Run | None:
        """Return the run of that name, or of that id or beginning of an id (6 letters or more).

        Raises `RunError` where several ids begin so.
        """
        rows = self.query("SELECT id FROM runs WHERE name = ?", (name,))
        if not rows and len(name) >= SHORTEST_PREFIX:
            rows = self.query("SELECT id FROM runs WHERE substr(id, 1, ?) = ?", (len(name), name))
        if len(rows) > 1:
            raise RunError(f"An id must begin as one run's does, {name!r} begins {len(rows)}.")
        return Run(self, rows[0][0]) if rows else None

    def get(self, name: str) -> Run:
        """Return the run of that name or id. Raises `RunError` that names those that exist."""
        run = self.find(name)
        if run is None:
            names = [row[0] for row in self.query("SELECT name FROM runs ORDER BY created DESC")]
            there = ", ".join(names[:8]) + (", …" if len(names) > 8 else "")
            raise RunError(f"There is no run {name!r} in {self.path}. Runs are: {there or 'none'}.")
        return run

    def runs(self) -> list[Run]:
        """Return all runs, newest first."""
        rows = self.query("SELECT id FROM runs ORDER BY created DESC, rowid DESC")
        return [Run(self, row[0]) for row in rows]

    def delete(self, name: str) -> None:
        """Delete a run, its rows and its files. Raises `RunLocked` while it is driven."""
        run = self.get(name)
        lock = RunLock(run.folder / "lock", run.name)
        try:
            with self._lock, transaction(self._open()) as connection:
                connection.execute("DELETE FROM runs WHERE id = ?", (run.id,))
            shutil.rmtree(run.folder)
        finally:
            lock.release()

    # What runs and drivers ask ----------------------------------------------------------------

    def query(self, statement: str, values: tuple[object, ...] = ()) -> list[tuple[Any, ...]]:
        """Read rows; from any thread."""
        with self._lock:
            try:
                return self._open().execute(statement, values).fetchall()
            except sqlite3.Error as error:
                raise RunError(f"The journal {self.path} could not be read: {error}.") from error

    def folder_of(self, id: str) -> Path:
        """Return the folder of a run's files."""
        return self.path.parent / "runs" / id

    def add_request(self, run: Run, action: str, edits: Mapping[str, object] | None) -> int:
        """Write a request to a run's driver."""
        if action not in ACTIONS:
            raise InputError(f"A request must be one of {', '.join(ACTIONS)}, got {action!r}.")
        if action != "change" and not run.driven:
            raise RunError(f"To {action} a run, it must be running; {run.name!r} is {run.status}.")
        text = encode_exactly(check_edits(edits), "An edit") if action == "change" else None
        with self._lock, transaction(self._open()) as connection:
            return int(
                connection.execute(
                    "INSERT INTO requests (run, action, edits, created) VALUES (?, ?, ?, ?) "
                    "RETURNING number",
                    (run.id, action, text, time.time()),
                ).fetchone()[0]
            )

    def amend(self, run: Run, entries: Mapping[str, JSON]) -> None:
        """Record entries in the spec of a run."""
        with self._lock, transaction(self._open()) as connection:
            connection.execute(
                "UPDATE runs SET spec = ? WHERE id = ?",
                (encode_exactly({**run.spec, **entries}, "The spec of a run"), run.id),
            )

    def branch(
        self, parent: Run, row: CheckpointRow, name: str, edits: Mapping[str, object] | None
    ) -> Run:
        """Make a run whose first checkpoint is a copy of one of the parent's."""
        _check_name(name)
        text = encode_exactly(check_edits(edits), "An edit")
        with self._lock, transaction(self._open()) as connection:
            run = self._insert(
                connection, name, parent.kind, parent.spec, (parent.id, row.tick), text
            )
            connection.execute(
                "UPDATE runs SET status = 'paused', tick = ?, position = ? WHERE id = ?",
                (row.tick, row.position, run.id),
            )
            connection.execute(
                "INSERT INTO results SELECT ?, key, number, tick, row, created FROM results "
                "WHERE run = ? AND tick <= ?",
                (run.id, parent.id, row.tick),
            )
            connection.execute(  # the condition that it was given later goes with it
                "INSERT INTO events SELECT ?, 1, ?, name, data, created FROM events "
                "WHERE run = ? AND name = 'until' AND tick <= ? ORDER BY seq DESC LIMIT 1",
                (run.id, row.tick, parent.id, row.tick),
            )
            connection.execute(
                "INSERT INTO checkpoints VALUES (?, ?, ?, ?, ?, ?, ?)",
                (run.id, row.tick, row.position, row.path.name, row.bytes, row.crc, time.time()),
            )
            _copy(row.path, run.folder / row.path.name)
        return run

    def edits_of(self, run: Run) -> dict[str, object] | None:
        """Return a branch's edits that are not applied yet; None for any other run."""
        rows = self.query("SELECT edits FROM runs WHERE id = ?", (run.id,))
        if not rows:
            raise RunError(f"The run {run.id} is not in {self.path}: it was deleted.")
        return None if rows[0][0] is None else dict(decode(rows[0][0]))

    def sweep(self, run: Run) -> None:
        """Remove files that a killed driver left: those without a row. Only for the driver."""
        known = {row.path for row in run.checkpoints()}
        for path in [*run.folder.glob("*.safetensors"), *run.folder.glob(".*.tmp")]:
            if path not in known:
                path.unlink(missing_ok=True)

    # Inside -----------------------------------------------------------------------------------

    def _open(self) -> sqlite3.Connection:
        """Return the connection; a forked child opens its own."""
        if self._pid != os.getpid():
            _OF_PARENT.append(self._connection)
            self._connection, self._pid = connect(self.path), os.getpid()
        return self._connection

    def _insert(
        self,
        connection: sqlite3.Connection,
        name: str,
        kind: str,
        spec: Mapping[str, JSON],
        parent: tuple[str, int] | None,
        edits: str | None = None,
    ) -> Run:
        id, now = os.urandom(6).hex(), time.time()
        origin, tick = parent or (None, None)
        text = encode_exactly(spec, "The spec of a run")
        try:
            connection.execute(
                "INSERT INTO runs VALUES (?, ?, ?, ?, 'new', 0, 0, NULL, ?, ?, ?, ?, ?)",
                (id, name, kind, text, edits, origin, tick, now, now),
            )
        except sqlite3.IntegrityError:
            raise RunError(
                f"The name of a run must be new in {self.path}, got {name!r}, which is there. "
                f"Take another, resume that run, or delete it: ostinato runs delete {name}"
            ) from None
        return Run(self, id)


def _check_name(name: str) -> None:
    if not isinstance(name, str) or not SAFE_NAME.fullmatch(name):
        raise RunError(
            "The name of a run must be 1 to 100 letters, digits, '.', '_' or '-', beginning with "
            f"a letter or digit, got {name!r}. Choose for example 'replies-1'."
        )


def _copy(source: Path, target: Path) -> None:
    """Copy a checkpoint; its file never changes, so a second name for it will do."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except OSError:  # no links on this file system
        shutil.copyfile(source, target)
        with target.open("rb+") as file:
            os.fsync(file.fileno())
    folder = os.open(target.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
