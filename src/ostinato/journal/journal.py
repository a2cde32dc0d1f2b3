"""The journal: make runs, find, drive, branch and delete them, send requests to their drivers.

Knows no loop and no process. One process drives a run, any number may read.
"""

from __future__ import annotations

import os
import re
import shutil
import sqlite3
import time
import unicodedata
from collections.abc import Mapping
from hashlib import blake2b
from pathlib import Path

from ostinato.arguments import did_you_mean
from ostinato.errors import InputError, RunError
from ostinato.journal.checkpoint import sync_folder
from ostinato.journal.database import Database
from ostinato.journal.edits import check_edits
from ostinato.journal.encoding import encode_exactly
from ostinato.journal.lock import RunLock
from ostinato.journal.run import (
    CheckpointRow,
    Keep,
    Run,
    RunSummary,
    all_runs,
    run_summaries,
)
from ostinato.journal.schema import ROW_BYTES, is_full
from ostinato.journal.session import RunSession, amend_spec
from ostinato.journal.stops import JSON, StopKind

DEFAULT = Path(".ostinato/journal.db")
SAFE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
SHORTEST_PREFIX = 6  # of the 12 hexadecimal digits of an id
ACTIONS = ("pause", "stop", "change")
ENDED = ("stopped", "error")
"""The statuses of runs that are not meant to be resumed as they are."""


class Journal:
    """Opens a journal, and makes it where there is none. A context manager.

    Raises `RunError` for a file that is no journal, or one of a newer schema.
    """

    def __init__(self, path: str | Path = DEFAULT) -> None:
        self._database = Database(Path(path))

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()

    @property
    def path(self) -> Path:
        """The absolute path of the SQLite file."""
        return self._database.path

    def close(self) -> None:
        """Close the file: its runs can no longer be read. Sessions have their own connections."""
        self._database.close()

    # Making and finding -----------------------------------------------------------------------

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
        with self._database.write() as connection:
            return self._insert(connection, name, kind, spec or {}, parent)

    def find(self, name: str) -> Run | None:
        """Return the run of that name, id, or prefix of an id (6 digits or more); None without one.

        Raises `RunError` where several ids have that prefix.
        """
        query = self._database.query
        rows = query("SELECT id FROM runs WHERE name = ?", (name,))
        if not rows and len(name) >= SHORTEST_PREFIX:
            rows = query("SELECT id FROM runs WHERE substr(id, 1, ?) = ?", (len(name), name))
        if len(rows) > 1:
            raise RunError(
                f"The prefix of an id must be that of one run, got {name!r}, that of {len(rows)}. "
                "Give more of its digits."
            )
        return Run(self._database, rows[0][0]) if rows else None

    def get(self, name: str) -> Run:
        """Return the run of that name or id. Raises `RunError` that names those that exist."""
        run = self.find(name)
        if run is None:
            names = [other.name for other in self.runs()]
            there = ", ".join(names[:8]) + (", …" if len(names) > 8 else "")
            guess = did_you_mean(name, names)
            raise RunError(
                f"There is no run {name!r} in {self.path}.{guess} Runs are: {there or 'none'}."
            )
        return run

    def runs(self) -> list[Run]:
        """Return all runs, newest first."""
        return all_runs(self._database)

    def summaries(
        self, *, kind: str | None = None, status: str | None = None, name: str | None = None
    ) -> list[RunSummary]:
        """Return the rows of all runs with their sizes, newest first, by one query.

        `kind` and `status` select those of a kind and status, `name` those whose name fits a
        pattern with `*` and `?`.
        """
        return run_summaries(self._database, kind, status, name)

    def delete(self, name: str) -> None:
        """Delete a run, its rows and its files. Raises `RunLocked` while it is driven."""
        run = self.get(name)
        lock = RunLock(run.folder / "lock", run.name)
        try:
            # Rows first: a crash in between leaves files without a run, no run without its files.
            try:
                self._delete_rows(run)
            except RunError:
                if not is_full(run.folder):
                    raise
                _remove_files(run)  # on a full disk, to make room for the rows' deletion
                self._delete_rows(run)
            _remove_files(run)
        finally:
            lock.release()

    def prunable(
        self,
        *,
        older_than: float | None = None,
        keep: int | None = None,
        kind: str | None = None,
        status: str | None = None,
    ) -> list[RunSummary]:
        """Return the runs that `ostinato runs prune` deletes, newest first.

        Those that have ended (or have the given `status`), were written more than `older_than`
        seconds ago, and are none of the `keep` newest. A run that is driven stays, and one from
        which a run that stays was branched.
        """
        every = self.summaries()
        before = time.time() - (older_than or 0)
        fitting = [
            each
            for each in every
            if (kind is None or each.row.kind == kind)
            and each.row.status in (ENDED if status is None else (status,))
        ]
        chosen = {
            each.row.id
            for each in fitting[keep or 0 :]
            if each.row.updated <= before and not Run(self._database, each.row.id).driven
        }
        parents = {each.row.id: each.row.parent[0] for each in every if each.row.parent}
        for id in [each.row.id for each in every if each.row.id not in chosen]:
            while (parent := parents.get(id)) in chosen:
                assert parent is not None
                chosen.discard(parent)
                id = parent
        return [each for each in every if each.row.id in chosen]

    def compact(self) -> None:
        """Give the room of deleted runs back to the disk. Raises `RunError` where others write."""
        self._database.vacuum()

    def _delete_rows(self, run: Run) -> None:
        with self._database.write() as connection:
            connection.execute("DELETE FROM runs WHERE id = ?", (run.id,))

    # What is done with a run ------------------------------------------------------------------

    def drive(self, run: Run, keep: Keep = "steps") -> RunSession:
        """Become the run's only writer. Raises `RunLocked` where another process is.

        With `keep="results"` steps are counted but not recorded.
        """
        return RunSession(run, keep)

    def request(self, run: Run, action: str, edits: Mapping[str, object] | None = None) -> int:
        """Ask a run's driver to "pause", "stop" or "change" (with edits); return the row's number.

        The request is committed when this returns. A change waits for the next driver; the others
        raise `RunError` where nobody drives the run.
        """
        if action not in ACTIONS:
            raise InputError(f"A request must be one of {', '.join(ACTIONS)}, got {action!r}.")
        if action != "change" and not run.driven:
            raise RunError(f"To {action} a run, it must be running; {run.name!r} is {run.status}.")
        text = encode_exactly(_checked(edits), "An edit") if action == "change" else None
        with self._database.write() as connection:
            return int(
                connection.execute(
                    "INSERT INTO requests (run, action, edits, created) VALUES (?, ?, ?, ?) "
                    "RETURNING number",
                    (run.id, action, text, time.time()),
                ).fetchone()[0]
            )

    def amend(self, run: Run, entries: Mapping[str, JSON]) -> None:
        """Record entries in a run's spec, replacing those of the same names."""
        amend_spec(run, entries)

    def branch(
        self,
        parent: Run,
        name: str,
        *,
        tick: int | None = None,
        edits: Mapping[str, object] | None = None,
    ) -> Run:
        """Make a new run that starts at a checkpoint of another (the last, or that at `tick`).

        The edits are applied at its first step. Raises `RunError` where there is no checkpoint, and
        for edits at the natural end of a run: no step follows that they could change; `EditError`
        for edits that the process does not know, where the run records which it knows.
        """
        known = parent.spec.get("known_edits")
        if isinstance(known, dict):
            check_edits(known, _checked(edits))
        row = _branching_point(parent, tick, bool(edits))
        _check_name(name)
        text = encode_exactly(_checked(edits), "An edit")
        with self._database.write() as connection:
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
            connection.execute(  # a condition given on resume is an event: the branch keeps it
                "INSERT INTO events SELECT ?, 1, ?, name, data, created FROM events "
                "WHERE run = ? AND name = 'until' AND tick <= ? ORDER BY seq DESC LIMIT 1",
                (run.id, row.tick, parent.id, row.tick),
            )
            connection.execute(
                "INSERT INTO checkpoints VALUES (?, ?, ?, ?, ?, ?, ?)",
                (run.id, row.tick, row.position, row.path.name, row.bytes, row.crc, time.time()),
            )
            connection.execute(f"UPDATE runs SET bytes = {ROW_BYTES} WHERE id = ?", (run.id,))
            # Inside the transaction: where it fails, no run without its checkpoint is left.
            _copy(row.path, run.folder / row.path.name)
        return run

    def _insert(
        self,
        connection: sqlite3.Connection,
        name: str,
        kind: str,
        spec: Mapping[str, JSON],
        parent: tuple[str, int] | None,
        edits: str | None = None,
    ) -> Run:
        # Not from `random`: a program that seeds it would give all its runs the same id.
        id, now = os.urandom(6).hex(), time.time()
        origin, tick = parent or (None, None)
        text = encode_exactly(spec, "The spec of a run")
        try:
            connection.execute(
                # Columns by name: a newer version may add some while this one still runs.
                "INSERT INTO runs (id, name, kind, spec, status, tick, position, edits, parent, "
                "parent_tick, created, updated) VALUES (?, ?, ?, ?, 'new', 0, 0, ?, ?, ?, ?, ?)",
                (id, name, kind, text, edits, origin, tick, now, now),
            )
        except sqlite3.IntegrityError:
            raise RunError(
                f"The name of a run must be new in {self.path}, got {name!r}, which exists. "
                f"Use another, resume that run, or delete it: ostinato runs delete {name}"
            ) from None
        return Run(self._database, id)


def _branching_point(parent: Run, tick: int | None, changed: bool) -> CheckpointRow:
    """Return the checkpoint at a tick, or the last one, where a branch can start from it."""
    rows = parent.checkpoints()
    found = [row for row in rows if tick is None or row.tick == tick]
    if not found:
        there = ", ".join(str(row.tick) for row in rows) or "none"
        raise RunError(
            f"A branch must start at a checkpoint of {parent.name!r}, got tick {tick}. "
            f"Checkpoints are at: {there}."
        )
    now = parent.now()
    ended = now.stopped is not None and now.stopped.kind is StopKind.ENDED
    if changed and ended and found[-1].tick == now.tick:
        before = ", ".join(str(row.tick) for row in rows[:-1]) or "none"
        raise RunError(
            f"A branch with something changed must start before the end of {now.name!r}, got "
            f"tick {now.tick}, where it has ended. Checkpoints before that are at: {before}."
        )
    return found[-1]


def _checked(edits: Mapping[str, object] | None) -> dict[str, object]:
    """Return edits as a plain mapping. Raises `InputError` where a name is no text."""
    for name in edits or {}:
        if not isinstance(name, str):
            raise InputError(f"The name of an edit must be text, got {name!r}.")
    return dict(edits or {})


def safe_name(text: str) -> str:
    """Return a run's name for something that has another name, such as a folder or a file.

    The text itself where that is a name, else what is left of it and a hash: the same text has the
    same name at any time, and another text has another.
    """
    if SAFE_NAME.fullmatch(text):
        return text
    letters = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    kept = re.sub(r"[^A-Za-z0-9._-]+", "-", letters).strip("-._")[:80].rstrip("-._")
    digest = blake2b(text.encode("utf-8", "surrogatepass"), digest_size=4).hexdigest()
    return f"{kept or 'run'}-{digest}"


def _check_name(name: str) -> None:
    if not isinstance(name, str) or not SAFE_NAME.fullmatch(name):
        raise RunError(
            "The name of a run must be 1 to 100 letters, digits, '.', '_' or '-', starting with "
            f"a letter or digit, got {name!r}. Choose for example 'replies-1'."
        )


def _remove_files(run: Run) -> None:
    try:
        shutil.rmtree(run.folder)
    except FileNotFoundError:
        pass
    except OSError as error:
        raise RunError(
            f"The files of the run {run.name!r} in {run.folder} could not be deleted: "
            f"{error.strerror}. Delete that folder."
        ) from error


def _copy(source: Path, target: Path) -> None:
    """Copy a checkpoint; its file never changes, so a second name for it will do."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except OSError:  # no links on this file system
        shutil.copyfile(source, target)
        with target.open("rb+") as file:
            os.fsync(file.fileno())
    sync_folder(target.parent)
