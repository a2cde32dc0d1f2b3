"""The schema that a journal has, and bringing an older one to the newest."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ostinato.errors import RunError
from ostinato.journal.sqlite import migrations
from ostinato.journal.sqlite.connection import reads_only, transaction

LARGEST = 1 << 53
"""The largest whole number in a journal: sums of some still fit into SQLite's integers."""

_EMPTY = type(None)
_WHOLE = ("seq", "tick", "position", "first", "last", "bytes", "crc", "number", "brief")
_TIMES = ("created", "updated")
_TEXTS = ("id", "name", "kind", "spec", "status", "row", "arguments", "verdict")
_TEXTS_OR_EMPTY = (
    "data",
    "stopped",
    "edits",
    "parent",
    "caller",
    "caller_path",
    "child",
    "path",
    "file",
)
_ALSO_EMPTY = ("answer", "error", "author", "value", "text", "action")

_TYPES: dict[str, tuple[str, frozenset[type]]] = {
    **dict.fromkeys(_WHOLE, ("a whole number", frozenset({int}))),
    "parent_tick": ("a whole number", frozenset({int, _EMPTY})),
    **dict.fromkeys(_TIMES, ("a time", frozenset({float, int}))),
    "done": ("a time", frozenset({float, int, _EMPTY})),
    **dict.fromkeys(_TEXTS, ("a text", frozenset({str}))),
    **dict.fromkeys((*_TEXTS_OR_EMPTY, *_ALSO_EMPTY), ("a text", frozenset({str, _EMPTY}))),
}
"""What a column holds, by its name, which means the same in every table: SQLite holds columns to no
type, and a journal may be damaged, or somebody else's."""


def check_types(columns: Sequence[str], rows: Sequence[tuple[Any, ...]]) -> None:
    """Raise `ValueError` where rows that were read hold what no journal has."""
    for name, values in zip(columns, zip(*rows, strict=True), strict=False):  # no rows, no values
        what, types = _TYPES.get(name, ("", None))
        if types is None:
            continue
        wrong = set(map(type, values)) - types
        if wrong:
            value = next(value for value in values if type(value) in wrong)
            raise ValueError(f"{what} as {name}, got {value!r:.60}")
        if str not in types:
            numbers = [value for value in values if value is not None]
            for extreme in (min(numbers, default=0), max(numbers, default=0)):
                if not 0 <= extreme <= LARGEST:
                    raise ValueError(f"{what} from 0 to {LARGEST} as {name}, got {extreme!r}")


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
