"""How a connection to a journal is opened, and what this project relies on in it.

Knows SQLite, and which tables every journal has.
"""

from __future__ import annotations

import shutil
import sqlite3
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ostinato.errors import RunError

SPARE_BYTES = 1 << 20
"""Free bytes of a disk that is not full."""
PAGE_BYTES = 2048
"""A commit writes each page that it changes, however little: a call changes three."""
LOG_PAGES = 4000
"""Pages of the write-ahead log, 8 MB, after which it is synced and moved into the database."""
BUSY_SECONDS = 30.0
"""How long a writer waits for another process's transaction before it gives up."""


_TABLES = frozenset({"runs", "steps", "events", "results", "checkpoints", "requests"})
"""Tables that every journal has: a file with others only belongs to another program."""


def connect(path: Path, *, to_write: bool = False) -> sqlite3.Connection:
    """Open the database in autocommit mode, with every setting that this project relies on.

    A file that cannot be written now (no room, no right to) can be read, see `reads_only`, unless
    it is opened `to_write`. Raises `RunError` for another program's file, before anything is
    changed in it.
    """
    try:
        _refuse_foreign(path)
        return _opened(path, "rwc")
    except sqlite3.Error as error:
        if _is_locked(error):  # to read past a lock would show what is half written
            raise RunError(
                f"The journal {path} could not be opened: {error}. End the program that locks it, "
                "or name another with --journal."
            ) from error
        found = None if to_write else _opened_to_read(path)
        if found is None:
            reason = "the disk is full" if is_full(path.parent) else error
            raise RunError(
                f"The journal {path} must be a SQLite database that can be written, got: {reason}. "
                "Name another with --journal."
            ) from error
        return found


def is_full(folder: Path) -> bool:
    """Return whether the disk of a folder has too little room for a journal."""
    try:
        return shutil.disk_usage(folder).free < SPARE_BYTES
    except OSError:
        return False


def _opened(path: Path, mode: str) -> sqlite3.Connection:
    """Open the database in a mode of SQLite's: rwc (create it), ro, or ro of a file at rest."""
    flags = "immutable=1" if mode == "immutable" else f"mode={mode}"
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?{flags}",
        uri=True,
        timeout=BUSY_SECONDS,
        isolation_level=None,
        check_same_thread=False,
    )
    try:
        if mode == "rwc":
            connection.execute(f"PRAGMA page_size = {PAGE_BYTES}")  # of a new file
            _write_ahead(connection)
            connection.execute(f"PRAGMA wal_autocheckpoint = {LOG_PAGES}")
            sync_lazily(connection)
            _hold_references(connection)
        else:
            connection.execute("PRAGMA query_only = ON")
            _tables(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def _opened_to_read(path: Path) -> sqlite3.Connection | None:
    """Open a journal that cannot be written; None where it cannot be read either."""
    for mode in ("ro", "immutable"):
        try:
            connection = _opened(path, mode)
        except sqlite3.Error:
            continue
        if not _tables(connection):  # it was being made
            connection.close()
            continue
        log = _beside(path, "-wal")
        if mode == "immutable" and log.exists() and log.stat().st_size:
            warnings.warn(
                f"The journal {path} cannot be written, so its latest entries, in {log.name}, are "
                "not shown. Make room on the disk, or copy the folder.",
                stacklevel=2,
            )
        return connection
    return None


def reads_only(connection: sqlite3.Connection) -> bool:
    """Return whether nothing can be written through a connection."""
    return bool(connection.execute("PRAGMA query_only").fetchone()[0])


def _refuse_foreign(path: Path) -> None:
    """Raise `RunError` for a database without the tables of a journal, which stays as it is."""
    # At rest, without a log: to open it otherwise would leave a log beside it.
    at_rest = not any(_beside(path, end).exists() for end in ("-wal", "-journal"))
    try:
        connection = _opened(path, "immutable" if at_rest else "ro")
    except sqlite3.OperationalError as error:  # no such file, or none that can be read so
        if _is_locked(error):
            raise
        return
    try:
        tables = _tables(connection)
    finally:
        connection.close()
    if tables and not tables >= _TABLES:
        names = sorted(tables)
        there = ", ".join(names[:4]) + (", …" if len(names) > 4 else "")
        raise RunError(
            f"The journal {path} must be a file of Ostinato's, got a database with the tables "
            f"{there}. It belongs to another program: name another with --journal."
        )


def _beside(path: Path, end: str) -> Path:
    """Return the file in which SQLite keeps what is not in the database yet."""
    return path.with_name(path.name + end)


def _is_locked(error: sqlite3.Error) -> bool:
    # The low byte of a code is the error, the rest its variant.
    return error.sqlite_errorcode & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def _tables(connection: sqlite3.Connection) -> set[str]:
    rows = connection.execute(
        "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
    ).fetchall()
    return {str(name) for (name,) in rows}


def _write_ahead(connection: sqlite3.Connection) -> None:
    """Use a write-ahead log: readers continue while one writes; a commit appends to a file."""
    deadline = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            # The switch to WAL does not wait for others as statements do.
            if not _is_locked(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.01)


def sync_lazily(connection: sqlite3.Connection) -> None:
    """Do not wait for the disk at a commit: it survives the death of the process."""
    connection.execute("PRAGMA synchronous = NORMAL")


def sync_at_commit(connection: sqlite3.Connection) -> None:
    """Wait for the disk at a commit: it survives a loss of power.

    For what is acknowledged to somebody, such as a result.
    """
    connection.execute("PRAGMA synchronous = FULL")


def _hold_references(connection: sqlite3.Connection) -> None:
    """Check references, so that deleting a run deletes its rows in every table."""
    connection.execute("PRAGMA foreign_keys = ON")  # off by default, for each connection


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    """Commit all statements of the block together, or none of them.

    The write lock is taken at the start: a transaction that reads first and writes later could
    not wait for its turn.
    """
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield connection
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
