"""Deleting runs: which are old, and how their rows and files go.

A run that was called belongs to its caller: it goes with it, and stays with it.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

from ostinato.arguments import require_at_least
from ostinato.errors import RunError
from ostinato.journal.artifacts.artifact import folder_of
from ostinato.journal.artifacts.tables import drop_artifacts, files_without_rows, remove_files
from ostinato.journal.encoding import encode
from ostinato.journal.lock import RunLock, holder
from ostinato.journal.records import RunSummary
from ostinato.journal.run import Run, run_summaries
from ostinato.journal.sqlite.connection import is_full
from ostinato.journal.sqlite.database import Database

ENDED = ("stopped", "error")
"""The statuses of runs that are not meant to be resumed as they are."""
AT_ONCE = 50
"""Brief runs that go when another is made, at most: making a run must not take long."""


@dataclass(frozen=True, kw_only=True)
class Retention:
    """How long brief runs are kept: the `newest` that have ended, and none for over `days`.

    Those that wait, are driven, have notes or branches, or were called by another run stay.
    """

    newest: int = 100
    days: float = 30.0

    def __post_init__(self) -> None:
        require_at_least(0, newest=self.newest, days=self.days)


# Deleting ---------------------------------------------------------------------------------------


def family(database: Database, run: Run) -> list[Run]:
    """Return a run and all that it called, and that those called."""
    rows = database.query(
        "WITH RECURSIVE family (id) AS (VALUES (?) UNION "
        "SELECT runs.id FROM runs JOIN family ON runs.caller = family.id) SELECT id FROM family",
        (run.id,),
    )
    return [Run(database, row[0]) for row in rows]


def delete_family(database: Database, run: Run) -> list[Run]:
    """Delete a run with all that it called. Raises `RunLocked` while one of them is driven."""
    runs = family(database, run)
    remove_leftovers(database)
    with ExitStack() as locks:
        for each in runs:
            locks.callback(RunLock(each.folder / "lock", each.name, database.path).release)
        # Rows first: a crash in between leaves files without a run, no run without its files. The
        # marks tell the next deletion which files these are.
        marks = _mark(database, runs)
        try:
            delete_rows(database, runs)
        except RunError:
            if not is_full(runs[0].folder):
                _unmark(marks)
                raise
            _delete_rows_for_room(database, runs)
        for each in runs:
            _remove_files(each)
        _unmark(marks)
    return runs


def _marks(database: Database) -> Path:
    """Return the folder with a file for each run of this journal that is being deleted."""
    return database.runs_folder / ".deleted" / database.path.name


def _mark(database: Database, runs: Iterable[Run]) -> list[Path]:
    marks = [_marks(database) / run.id for run in runs]
    with suppress(OSError):  # the disk is full: only a crash at this moment leaves something then
        for mark in marks:
            mark.parent.mkdir(parents=True, exist_ok=True)
            mark.touch()
    return marks


def _unmark(marks: Iterable[Path]) -> None:
    with suppress(OSError):  # it may be read-only, or not empty
        for mark in marks:
            mark.unlink(missing_ok=True)
        for folder in (mark.parent, mark.parent.parent):
            folder.rmdir()


def remove_leftovers(database: Database) -> None:
    """Remove the files of runs whose deletion was cut short after their rows were gone."""
    folder = _marks(database)
    if not folder.is_dir():  # as nearly always
        return
    for mark in folder.iterdir():
        if not database.query("SELECT 1 FROM runs WHERE id = ?", (mark.name,)):
            with suppress(RunError):  # of no id, too
                _remove_files(Run(database, mark.name))
                _unmark([mark])


def delete_rows(database: Database, runs: Sequence[Run]) -> None:
    """Delete the rows of runs, in one transaction."""
    files: list[str] = []
    with database.write() as connection:
        for run in runs:  # one by one: what two of them share goes with the second
            files += drop_artifacts(connection, run.id)
            connection.execute("DELETE FROM runs WHERE id = ?", (run.id,))
    # After the commit: a crash in between leaves files without rows, no row without its file.
    for run in runs:
        files += files_without_rows(database, run.id)
    remove_files(folder_of(database.path), files)


def _delete_rows_for_room(database: Database, runs: Sequence[Run]) -> None:
    """Delete rows where the disk is full: oldest checkpoints go first, one by one, to make room.

    So a run that cannot be deleted after all has lost as little as possible.
    """
    for path in _oldest_first(runs):
        path.unlink(missing_ok=True)
        try:
            delete_rows(database, runs)
        except RunError:
            continue
        return
    delete_rows(database, runs)


def _oldest_first(runs: Iterable[Run]) -> Iterator[Path]:
    """Yield the files of runs; the last checkpoint of each comes after all others."""
    files = [sorted(run.folder.glob("*.safetensors")) for run in runs]
    yield from (path for each in files for path in each[:-1])
    yield from (path for each in files for path in each[-1:])


def _remove_files(run: Run) -> None:
    try:
        shutil.rmtree(run.folder)
    except FileNotFoundError:
        pass
    except OSError as error:
        raise RunError(
            f"The files of the deleted run {run.id} in {run.folder} could not be deleted: "
            f"{error.strerror}. Delete that folder."
        ) from error


# Old runs ---------------------------------------------------------------------------------------


def prunable(
    database: Database,
    older_than: float | None,
    keep: int | None,
    kind: str | None,
    status: str | None,
) -> list[RunSummary]:
    """Return the runs that are old, newest first, see `Journal.prunable`."""
    every = run_summaries(database, None, None, None)
    there = {each.row.id: each for each in every}
    before = time.time() - (older_than or 0)
    own = [each for each in every if _caller(each) not in there]
    fitting = [
        each
        for each in own
        if (kind is None or f"{each.row.kind} ".startswith(f"{kind} "))
        and each.row.status in (ENDED if status is None else (status,))
    ]
    chosen = {each.row.id for each in fitting[keep or 0 :] if each.row.updated <= before}
    for each in reversed(every):  # a caller is older than what it calls
        if _caller(each) in chosen:
            chosen.add(each.row.id)
    staying = [
        each
        for each in every
        if each.row.id not in chosen or holder(_lock(database, each)) is not None
    ]
    called: dict[str | None, list[RunSummary]] = {}
    for each in every:
        called.setdefault(_caller(each), []).append(each)
    # What stays keeps the run that it was branched from, its caller, and what it called.
    while staying:
        each = staying.pop()
        chosen.discard(each.row.id)
        kin = [*called.get(each.row.id, []), *(there[i] for i in _origins(each) if i in there)]
        staying += [other for other in kin if other.row.id in chosen]
    return [each for each in every if each.row.id in chosen]


def _lock(database: Database, each: RunSummary) -> Path:
    return database.folder_of(each.row.id) / "lock"


def _caller(each: RunSummary) -> str | None:
    return each.row.caller[0] if each.row.caller else None


def _origins(each: RunSummary) -> Iterator[str]:
    yield from (origin[0] for origin in (each.row.parent, each.row.caller) if origin)


def prune_brief(database: Database, retention: Retention) -> None:
    """Delete the brief runs that are kept no longer; what cannot be deleted now stays."""
    with suppress(RunError):
        remove_leftovers(database)
        for (id,) in database.query(
            _BRIEF, (retention.newest, time.time() - retention.days * 86400, AT_ONCE)
        ):
            _prune_family(database, Run(database, id))


# Oldest first. One with the status 'running' is driven, or was killed. What the last conditions
# leave out is looked at again, with all that the run called: here, it must not use up the limit.
_BRIEF = """
SELECT id FROM runs WHERE brief AND caller IS NULL AND status <> 'waiting' AND (
  updated < ?2 OR status IN ('stopped', 'error') AND id NOT IN (
    SELECT id FROM runs WHERE brief AND caller IS NULL AND status IN ('stopped', 'error')
    ORDER BY created DESC, rowid DESC LIMIT ?1
  )
)
AND NOT EXISTS (SELECT 1 FROM runs AS branch WHERE branch.parent = runs.id)
AND NOT EXISTS (SELECT 1 FROM notes WHERE run = runs.id)
ORDER BY created, rowid LIMIT ?3"""


def _prune_family(database: Database, run: Run) -> None:
    runs = family(database, run)
    ids = {each.id for each in runs}
    branched = database.query(
        "SELECT parent, id FROM runs WHERE parent IN (SELECT value FROM json_each(?))",
        (encode(sorted(ids)),),
    )
    if any(branch not in ids for _, branch in branched):
        return
    if any(each.driven or each.notes() or each.questions() for each in runs):
        return
    with suppress(RunError):
        delete_family(database, run)
