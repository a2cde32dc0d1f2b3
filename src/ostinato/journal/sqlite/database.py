"""The SQLite file of a journal and the folder beside it, shared by all that read and write it.

Knows no tables: statements belong to `Run`, `Journal` and `RunTables`.
"""

from __future__ import annotations

import os
import re
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ostinato.errors import RunError
from ostinato.journal.fields import DAMAGED
from ostinato.journal.place import DEFAULT
from ostinato.journal.sqlite.connection import (
    connect,
    reads_only,
    sync_at_commit,
    sync_lazily,
    transaction,
)
from ostinato.journal.sqlite.schema import check_types, migrate

# A forked child keeps the connection that it inherited, and opens its own: closing the first would
# drop the parent's file locks (SQLite, "How To Corrupt", section 2.6).
_OF_PARENT: list[sqlite3.Connection] = []


RUN_ID = re.compile(r"[0-9a-f]{12}")

NO_SQL_VALUE = (OverflowError, UnicodeEncodeError)
"""What Python raises for a value that SQLite cannot hold: a huge number, half a character."""


class Database:
    """One connection to a journal's file, usable from any thread.

    It creates the file where there is none, and migrates an older one. One that cannot be written
    can be read.

    Raises `RunError` for a file that is no journal, or one of a newer schema.
    """

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        if self.path.is_dir():
            raise RunError(
                f"The journal {self.path} must be a file, got a folder. Name the file in it, such "
                f"as {path / DEFAULT}."
            )
        self._lock = threading.RLock()  # threads share the connection: one statement at a time
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

    def close(self) -> None:
        """Close the connection; sessions have their own."""
        with self._lock:
            self._connection.close()

    def folder_of(self, id: str) -> Path:
        """Return the folder of a run's files. Raises `RunError` for what is no id."""
        # A journal may come from somebody else: it must not lead to other folders.
        if not RUN_ID.fullmatch(id):
            raise RunError(
                f"The journal {self.path} must hold 12 hexadecimal digits as a run's id, got "
                f"{id!r:.60}. {DAMAGED}"
            )
        return self.runs_folder / id

    @property
    def runs_folder(self) -> Path:
        """The folder with the files of runs; journals of one folder share it."""
        return self.path.parent / "runs"

    def query(self, statement: str, values: tuple[object, ...] = ()) -> list[tuple[Any, ...]]:
        """Read rows. Raises `RunError` where that fails, or a column holds another type."""
        with self._lock:
            try:
                cursor = self._open().execute(statement, values)
                rows = cursor.fetchall()
            except (sqlite3.Error, *NO_SQL_VALUE) as error:
                raise RunError(f"The journal {self.path} could not be read: {error}.") from error
        try:
            check_types([column[0] for column in cursor.description], rows)
        except ValueError as error:
            raise RunError(f"The journal {self.path} must hold {error}. {DAMAGED}") from None
        return rows

    @contextmanager
    def write(self, *, synced: bool = False) -> Iterator[sqlite3.Connection]:
        """Commit all statements of the block in one transaction, or none of them.

        `synced`: they are on the disk afterwards. Raises `RunError` where it fails.
        """
        with self._lock:
            try:
                connection = self._open_to_write()
                if synced:
                    sync_at_commit(connection)
                try:
                    with transaction(connection):
                        yield connection
                finally:
                    if synced:
                        sync_lazily(connection)
            except NO_SQL_VALUE as error:
                raise RunError(f"The journal {self.path} could not be written: {error}.") from error
            except sqlite3.Error as error:
                raise RunError(
                    f"The journal {self.path} could not be written: {error}. Make room on the "
                    "disk, get the right to write there, or end what locks it."
                ) from error

    def vacuum(self) -> None:
        """Shrink the file to what is in it. Raises `RunError` where that is not possible now."""
        with self._lock:
            try:
                self._open_to_write().execute("VACUUM")
            except sqlite3.Error as error:
                raise RunError(
                    f"The journal {self.path} could not be made smaller: {error}."
                ) from error

    def _open(self) -> sqlite3.Connection:
        if self._pid != os.getpid():
            _OF_PARENT.append(self._connection)
            self._connection, self._pid = connect(self.path), os.getpid()
        return self._connection

    def _open_to_write(self) -> sqlite3.Connection:
        """Return the connection; a new one where it could only be read, as that may be over."""
        if reads_only(self._open()):
            connection = connect(self.path, to_write=True)
            self._connection.close()
            self._connection = connection
        return self._connection
