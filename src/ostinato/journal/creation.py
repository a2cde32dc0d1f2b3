"""Making the row of a new run, and names for runs."""

from __future__ import annotations

import os
import re
import sqlite3
import time
import unicodedata
from collections.abc import Mapping
from hashlib import blake2b
from typing import NamedTuple

from ostinato.errors import RunError
from ostinato.journal.encoding import encode_exactly
from ostinato.journal.place import runs_command
from ostinato.journal.run import Run
from ostinato.journal.sqlite.database import Database
from ostinato.journal.stops import JSON

SAFE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


def create_run(
    database: Database,
    name: str,
    *,
    kind: str,
    spec: Mapping[str, JSON],
    caller: tuple[str, str] | None = None,
    brief: bool = False,
    numbered: bool = False,
) -> Run:
    """Make a new run; `numbered`, with a number after its name where the name is taken."""
    if not numbered:
        check_name(name)
    with database.write() as connection:
        if numbered:
            name = _numbered(connection, _cleaned(name) or "run")
        run = NewRun(name, kind, encode_exactly(spec, "The spec of a run"), brief=brief)
        return Run(database, insert_run(connection, database, run, caller=caller))


class NewRun(NamedTuple):
    """The row of a new run; `spec` and `edits` are JSON texts."""

    name: str
    kind: str
    spec: str
    edits: str | None = None
    brief: bool = False


def insert_run(
    connection: sqlite3.Connection,
    database: Database,
    run: NewRun,
    *,
    parent: tuple[str, int] | None = None,
    caller: tuple[str, str] | None = None,
) -> str:
    """Insert the row of a run; return its id. Raises `RunError` where its name is taken."""
    # Not from `random`: a program that seeds it would give all its runs the same id.
    id, now = os.urandom(6).hex(), time.time()
    try:
        connection.execute(
            # Columns by name: a newer version may add some while this one still runs.
            "INSERT INTO runs (id, name, kind, spec, status, tick, position, edits, parent, "
            "parent_tick, caller, caller_path, brief, created, updated) "
            "VALUES (?, ?, ?, ?, 'new', 0, 0, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                *(id, run.name, run.kind, run.spec, run.edits),
                *(parent or (None, None)),
                *(caller or (None, None)),
                *(run.brief, now, now),
            ),
        )
    except sqlite3.IntegrityError as error:
        if "caller" in str(error):
            raise RunError(
                f"The path of a call must be new in its run, got {caller and caller[1]!r}, which "
                "has called a run already. Drive that run, or use another path."
            ) from None
        raise RunError(
            f"The name of a run must be new in {database.path}, got {run.name!r}, which exists. "
            "Use another, resume that run, or delete it: "
            f"{runs_command(database.path, 'delete', run.name)}"
        ) from None
    return id


def amend_spec(run: Run, entries: Mapping[str, JSON]) -> None:
    """Record entries in the spec of a run, replacing those of the same names."""
    with run.database.write() as connection:
        before = run.spec  # read under the lock: another process may add some, too
        text = encode_exactly({**before, **entries}, "The spec of a run")
        connection.execute("UPDATE runs SET spec = ? WHERE id = ?", (text, run.id))


def _numbered(connection: sqlite3.Connection, name: str) -> str:
    """Return a name that no run has: itself, or with the number after the highest that is taken."""
    rows = connection.execute(
        "SELECT name FROM runs WHERE name = ?1 OR name GLOB ?1 || '-[0-9]*'", (name,)
    ).fetchall()
    ends = [row[0][len(name) + 1 :] for row in rows]
    number = 1 + max([int(end) for end in ends if end.isdigit()], default=1)
    return f"{name}-{number}" if rows else name


def _cleaned(text: str) -> str:
    """Return what a name may have of a text."""
    letters = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    return re.sub(r"[^A-Za-z0-9._-]+", "-", letters).strip("-._")[:80].rstrip("-._")


def safe_name(text: str) -> str:
    """Return a run's name for something that has another name, such as a folder or a file.

    The text itself where that is a name, else what is left of it and a hash: the same text has the
    same name at any time, and another text has another.
    """
    if SAFE_NAME.fullmatch(text):
        return text
    digest = blake2b(text.encode("utf-8", "surrogatepass"), digest_size=4).hexdigest()
    return f"{_cleaned(text) or 'run'}-{digest}"


def check_name(name: str) -> None:
    """Raise `RunError` for what is no name of a run."""
    if not isinstance(name, str) or not SAFE_NAME.fullmatch(name):
        raise RunError(
            "The name of a run must be 1 to 100 letters, digits, '.', '_' or '-', starting with "
            f"a letter or digit, got {name!r}. Choose for example 'replies-1'."
        )
