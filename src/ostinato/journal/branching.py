"""Branches: new runs that start from a checkpoint of another, or just after one of its calls."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Mapping
from itertools import islice
from pathlib import Path

from ostinato.arguments import did_you_mean
from ostinato.errors import RunError
from ostinato.journal.artifacts.schema import ARTIFACT_BYTES
from ostinato.journal.artifacts.tables import share_artifacts
from ostinato.journal.creation import NewRun, check_name, insert_run
from ostinato.journal.edits import check_edits, checked
from ostinato.journal.encoding import encode, encode_exactly
from ostinato.journal.records import CheckpointRow
from ostinato.journal.run import Run
from ostinato.journal.sqlite.database import Database
from ostinato.journal.state.checkpoint import artifacts_in, sync_folder
from ostinato.journal.stops import StopKind


def branch_run(
    database: Database, parent: Run, name: str, tick: int | None, edits: Mapping[str, object] | None
) -> Run:
    """Make a branch, see `Journal.branch`."""
    known = parent.spec.get("known_edits")
    if isinstance(known, dict):
        check_edits(known, checked(edits))
    row = _branching_point(parent, tick, bool(edits))
    check_name(name)
    text = encode_exactly(checked(edits), "An edit")
    new = NewRun(name, parent.kind, encode(parent.spec), text)
    with database.write() as connection:
        id = insert_run(connection, database, new, parent=(parent.id, row.tick))
        values = {"new": id, "parent": parent.id, "tick": row.tick, "file": row.path.name}
        connection.execute(
            "UPDATE runs SET status = 'paused', tick = ?, position = ? WHERE id = ?",
            (row.tick, row.position, id),
        )
        for statement in _COPIES:
            connection.execute(statement, {**values, "now": time.time()})
        share_artifacts(connection, parent.id, id, artifacts_in(row.path))
        connection.execute(f"UPDATE runs SET bytes = bytes + {ARTIFACT_BYTES} WHERE id = ?", (id,))
        # Inside the transaction: where it fails, no run without its checkpoint is left.
        run = Run(database, id)
        _copy(row.path, run.folder / row.path.name)
    return run


def branch_after_call(database: Database, parent: Run, name: str, path: str) -> Run:
    """Make a branch that has the calls up to one, see `Journal.branch`.

    They are those that the parent had recorded when it recorded this one: as if it had been killed
    there, before its first checkpoint.
    """
    call = parent.call(path)
    if call is None:
        paths = [each.path for each in islice(parent.calls(), 1000)]
        there = ", ".join(paths[:8]) + (", …" if len(paths) > 8 else "")
        raise RunError(
            f"A branch must start after a call of {parent.name!r} that was answered, got {path!r}."
            f"{did_you_mean(path, paths)} Calls are: {there or 'none'}."
        )
    check_name(name)
    with database.write() as connection:
        new = NewRun(name, parent.kind, encode(parent.spec))
        id = insert_run(connection, database, new, parent=(parent.id, call.tick))
        connection.execute("UPDATE runs SET status = 'paused' WHERE id = ?", (id,))
        for statement in _CALL_COPIES:
            connection.execute(statement, {"new": id, "parent": parent.id, "seq": call.seq})
        share_artifacts(connection, parent.id, id, ())
        connection.execute(f"UPDATE runs SET bytes = bytes + {ARTIFACT_BYTES} WHERE id = ?", (id,))
    return Run(database, id)


_CALL_COPIES = (
    # At tick 0, as the branch takes all steps itself: its own checkpoints come after these calls.
    "INSERT INTO calls (run, path, seq, tick, arguments, answer, error, child, author, created) "
    "SELECT :new, path, seq, 0, arguments, answer, error, child, author, created FROM calls "
    "WHERE run = :parent AND seq <= :seq",
    "UPDATE runs SET seq = :seq WHERE id = :new",
    "UPDATE runs SET bytes = (SELECT COALESCE(SUM(LENGTH(CAST(arguments AS BLOB)) + "
    "COALESCE(LENGTH(CAST(answer AS BLOB)), 0)), 0) FROM calls WHERE run = :new) WHERE id = :new",
)

# What is copied keeps its number: the log of a branch goes on where that of its parent was left.
_COPIES = (
    "INSERT INTO results (run, key, seq, tick, row, created) "
    "SELECT :new, key, seq, tick, row, created FROM results WHERE run = :parent AND tick <= :tick",
    # Of those at its tick the later ones belong to the next step, which the branch takes itself.
    "INSERT INTO calls (run, path, seq, tick, arguments, answer, error, child, author, created) "
    "SELECT :new, path, seq, tick, arguments, answer, error, child, author, created FROM calls "
    "WHERE run = :parent AND (tick < :tick OR tick = :tick AND seq < "
    "(SELECT seq FROM checkpoints WHERE run = :parent AND file = :file))",
    # Those that were made later, too: they are about results that the branch has.
    "INSERT INTO notes (run, seq, key, verdict, value, text, author, created) "
    "SELECT :new, seq, key, verdict, value, text, author, created FROM notes "
    "WHERE run = :parent AND key IN (SELECT key FROM results WHERE run = :new)",
    # A condition given on resume is an event: the branch keeps it.
    "INSERT INTO events (run, seq, tick, name, data, created) "
    "SELECT :new, seq, :tick, name, data, created FROM events "
    "WHERE run = :parent AND name = 'until' AND tick <= :tick ORDER BY seq DESC LIMIT 1",
    "INSERT INTO checkpoints (run, tick, position, file, bytes, crc, seq, created) "
    "SELECT :new, tick, position, file, bytes, crc, seq, :now FROM checkpoints "
    "WHERE run = :parent AND file = :file",
    "UPDATE runs SET seq = MAX("
    "(SELECT COALESCE(MAX(seq), 0) FROM results WHERE run = :new), "
    "(SELECT COALESCE(MAX(seq), 0) FROM calls WHERE run = :new), "
    "(SELECT COALESCE(MAX(seq), 0) FROM notes WHERE run = :new), "
    "(SELECT COALESCE(MAX(seq), 0) FROM events WHERE run = :new), "
    "(SELECT COALESCE(MAX(seq), 0) FROM checkpoints WHERE run = :new)) WHERE id = :new",
    "UPDATE runs SET bytes = "
    "(SELECT COALESCE(SUM(LENGTH(CAST(data AS BLOB))), 0) FROM events WHERE run = :new) + "
    "(SELECT COALESCE(SUM(LENGTH(CAST(row AS BLOB))), 0) FROM results WHERE run = :new) + "
    "(SELECT COALESCE(SUM(LENGTH(CAST(arguments AS BLOB)) + "
    "COALESCE(LENGTH(CAST(answer AS BLOB)), 0)), 0) FROM calls WHERE run = :new) + "
    "(SELECT COALESCE(SUM(COALESCE(LENGTH(CAST(value AS BLOB)), 0) + "
    "LENGTH(CAST(text AS BLOB))), 0) FROM notes WHERE run = :new) WHERE id = :new",
)


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


def _copy(source: Path, target: Path) -> None:
    """Copy a checkpoint; its file never changes, so a second name for it will do."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(source, target)
        except OSError:  # no links on this file system
            shutil.copyfile(source, target)
            with target.open("rb+") as file:
                os.fsync(file.fileno())
        sync_folder(target.parent)
    except (OSError, ValueError) as error:  # ValueError: for a name that is none
        shutil.rmtree(target.parent, ignore_errors=True)
        why = error.strerror if isinstance(error, OSError) else error
        raise RunError(
            f"The checkpoint {source} could not be copied to the branch: {why}. Branch from "
            "another one, or make room on the disk."
        ) from error
