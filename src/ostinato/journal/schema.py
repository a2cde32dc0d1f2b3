"""The schema that a journal has, and bringing an older one to the newest."""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path

from ostinato.errors import RunError
from ostinato.journal import migrations
from ostinato.journal.connection import reads_only, transaction


def version(connection: sqlite3.Connection) -> int:
    """Return the number of the schema that the database has; 0 for an empty one."""
    found = connection.execute(
        "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'migrations'"
    ).fetchone()
    if found is None:
        return 0
    return int(connection.execute("SELECT COALESCE(MAX(version), 0) FROM migrations").fetchone()[0])


def migrate(connection: sqlite3.Connection, path: Path) -> None:
    """Bring the tables to the newest schema. Raises `RunError` for one that is newer still."""
    newest = len(migrations.MIGRATIONS)
    try:
        has = version(connection)
        if has < newest and reads_only(connection):
            raise RunError(
                f"The journal {path} must have schema {newest} to be read where nothing can be "
                f"written, got {has}. Copy its folder to where there is room."
            )
        while has < newest:
            has = _one_migration(connection)
    except sqlite3.Error as error:
        raise RunError(
            f"The journal {path} must be a SQLite database that can be written, got: {error}. "
            "Name another with --journal."
        ) from error
    if has > newest:
        raise RunError(
            f"The journal {path} must have schema {newest} or an older one, got {has}. "
            "A newer Ostinato wrote it: upgrade with pip install --upgrade ostinato."
        )


def _one_migration(connection: sqlite3.Connection) -> int:
    with transaction(connection):
        connection.execute(
            "CREATE TABLE IF NOT EXISTS migrations (version INTEGER PRIMARY KEY, applied REAL)"
        )
        has = version(connection)  # inside the lock: another process may have been faster
        if has < len(migrations.MIGRATIONS):
            migrations.MIGRATIONS[has](connection)
            has += 1
            connection.execute("INSERT INTO migrations VALUES (?, ?)", (has, time.time()))
    return has
