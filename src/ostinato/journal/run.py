"""A run: a view on one row of the journal and what belongs to it. Reads; `Journal` has the verbs.

Many processes may look at a run while one drives it.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any

from ostinato.errors import RunError
from ostinato.journal.artifacts.artifact import Artifact, reader
from ostinato.journal.artifacts.rows import ArtifactRow, artifacts_of, find_artifact
from ostinato.journal.encoding import decode
from ostinato.journal.fields import Fields, as_object
from ostinato.journal.lock import holder
from ostinato.journal.log import RunReader
from ostinato.journal.records import (
    Call,
    CheckpointRow,
    Event,
    LogEntry,
    Note,
    Question,
    Request,
    RunRow,
    RunSummary,
    Status,
    StepRecord,
)
from ostinato.journal.sqlite.database import Database
from ostinato.journal.state.checkpoint import load_state
from ostinato.journal.stops import JSON, Stopped

_COLUMNS = (
    "id, name, kind, spec, status, tick, position, stopped, parent, parent_tick, created, updated, "
    "caller, caller_path, brief, seq"
)


def _row(database: Database, values: tuple[Any, ...]) -> RunRow:
    id, name, kind, spec, status, tick, position, stopped, parent, at, *rest = values
    created, updated, caller, path, brief, seq = rest
    # A killed driver could not record its end, but the system released its lock.
    if status == "running" and holder(database.folder_of(id) / "lock") is None:
        status = "interrupted"
    return RunRow(
        id=id,
        name=name,
        kind=kind,
        spec=as_object(decode(spec)),
        status=status,
        tick=tick,
        position=position,
        stopped=Stopped.from_json(as_object(decode(stopped))) if stopped else None,
        parent=(parent, at) if parent is not None else None,
        created=created,
        updated=updated,
        caller=(caller, path) if caller is not None else None,
        brief=bool(brief),
        seq=seq,
    )


class Run:
    """One execution recorded in a journal. Every property reads the journal again."""

    def __init__(self, database: Database, id: str) -> None:
        self.database = database
        self.id = id
        self.folder = database.folder_of(id)
        self._reader = RunReader(database, id)

    def __repr__(self) -> str:
        return f"Run({self.name!r}, {self.status}, tick={self.tick})"

    def now(self) -> RunRow:
        """Read the whole row at once. Raises `RunError` where the run has been deleted."""
        rows = self.database.query(f"SELECT {_COLUMNS} FROM runs WHERE id = ?", (self.id,))
        if not rows:
            raise RunError(f"The run {self.id} is not in {self.database.path}: it was deleted.")
        return _row(self.database, rows[0])

    @property
    def name(self) -> str:
        """The name, unique in its journal."""
        return self.now().name

    @property
    def kind(self) -> str:
        """The class of its process, or the kind of job."""
        return self.now().kind

    @property
    def spec(self) -> dict[str, JSON]:
        """What the run was started with: its configuration, as JSON."""
        return self.now().spec

    @property
    def status(self) -> Status:
        """The status; a run recorded as running that has no driver was killed: interrupted."""
        return self.now().status

    @property
    def tick(self) -> int:
        """The last tick that is committed."""
        return self.now().tick

    @property
    def position(self) -> int:
        """The process's position at the last committed tick."""
        return self.now().position

    @property
    def stopped(self) -> Stopped | None:
        """Why the run stopped; None while it can be resumed."""
        return self.now().stopped

    @property
    def until(self) -> str | None:
        """The condition of the last session in Python's spelling; None if unknown."""
        spelling = self.later_until or self.spec.get("until")
        return spelling if isinstance(spelling, str) else None

    @property
    def later_until(self) -> str | None:
        """The condition that replaced the first one on resume; None while the first one holds."""
        rows = self.database.query(
            "SELECT data FROM events WHERE run = ? AND name = 'until' ORDER BY seq DESC LIMIT 1",
            (self.id,),
        )
        until = as_object(decode(rows[0][0])).get("until") if rows else None
        return until if isinstance(until, str) else None

    @property
    def pending_edits(self) -> dict[str, object] | None:
        """A branch's edits that are not applied yet; None for any other run."""
        rows = self.database.query("SELECT edits FROM runs WHERE id = ?", (self.id,))
        if not rows:
            raise RunError(f"The run {self.id} is not in {self.database.path}: it was deleted.")
        return None if rows[0][0] is None else as_object(decode(rows[0][0]))

    @property
    def parent(self) -> tuple[str, int] | None:
        """The id of the run that this one branched from, and the tick."""
        return self.now().parent

    def parent_run(self) -> Run | None:
        """Return the run that this one branched from; None for no branch, or a deleted parent."""
        origin = self.now().parent
        # It is older: a damaged journal must not lead round in a circle.
        known = origin and self.database.query(
            "SELECT 1 FROM runs AS own, runs AS older "
            "WHERE own.id = ? AND older.id = ? AND older.rowid < own.rowid",
            (self.id, origin[0]),
        )
        return Run(self.database, origin[0]) if origin and known else None

    @property
    def caller(self) -> tuple[str, str] | None:
        """The id of the run that called this one, and the path of the call."""
        return self.now().caller

    def called(self) -> list[Run]:
        """Return the runs that this one called, in the order in which they were made."""
        rows = self.database.query(
            "SELECT id FROM runs WHERE caller = ? ORDER BY created, rowid", (self.id,)
        )
        return [Run(self.database, row[0]) for row in rows]

    def newer(self) -> Iterator[Run]:
        """Yield the runs of the journal that were made after this one, newest first."""
        for run in all_runs(self.database):
            if run.id == self.id:
                return
            yield run

    @property
    def created(self) -> float:
        """When the run was made, in seconds since 1970."""
        return self.now().created

    @property
    def updated(self) -> float:
        """When the run was last written, in seconds since 1970."""
        return self.now().updated

    @property
    def driver_pid(self) -> int | None:
        """The process that drives the run, None where there is none."""
        return holder(self.folder / "lock")

    @property
    def driven(self) -> bool:
        """Whether a process drives the run."""
        return self.driver_pid is not None

    # What was recorded ------------------------------------------------------------------------

    def log(self, after: int = 0) -> Iterator[LogEntry]:
        """Yield all that was recorded, in order, from the number after `after` on.

        It ends with the last entry that was there when it began. To follow a run, begin again
        after the last number (`seq`): nothing is missed and nothing comes twice. A number can be
        missing, where a checkpoint was dropped. A branch goes on with the numbers of its parent.
        """
        return self._reader.entries(after)

    def steps(self, after: int = 0) -> Iterator[StepRecord]:
        """Yield the recorded steps of ticks greater than `after`, in order."""
        return self._reader.steps(after)

    def history(self) -> Iterator[StepRecord]:
        """Yield the steps from the start, those before a branch from the runs it comes from.

        The steps of a deleted run are missing.
        """
        origin, parent = self.now().parent, self.parent_run()
        if origin is not None and parent is not None:
            tick = origin[1]
            yield from takewhile(lambda step: step.tick <= tick, parent.history())
        yield from self.steps()

    def events(self, after: int = 0) -> Iterator[Event]:
        """Yield the events with sequence numbers greater than `after`, in order."""
        return self._reader.events(after)

    def results(self, *, edited: bool = False) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield (key, row) of every result, in the order in which they were recorded.

        `edited` puts what was edited by hand in place of what was recorded, see `Journal.note`.
        """
        changes = self._edited() if edited else {}
        for result in self._reader.results():
            yield result.key, {**result.row, **changes.get(result.key, {})}

    def _edited(self) -> dict[str, dict[str, Any]]:
        """Return the fields of results that were edited, by key; the last edit of each counts."""
        changes: dict[str, dict[str, Any]] = {}
        for note in self._reader.notes():
            changes.setdefault(note.key, {}).update(note.value or {})
        return changes

    def result(self, key: str) -> dict[str, Any] | None:
        """Return one result, None where there is none yet."""
        rows = self.database.query(
            "SELECT row FROM results WHERE run = ? AND key = ?", (self.id, key)
        )
        return as_object(reader(self.database)(rows[0][0])) if rows else None

    def results_of(self, keys: Sequence[str]) -> dict[str, dict[str, Any]]:
        """Return the results of some keys, at most a few thousand; those without one are left out.

        So a caller that knows the keys reads the results in its own order, and keeps few of them.
        """
        marks = ",".join("?" * len(keys))
        rows = self.database.query(
            f"SELECT key, row FROM results WHERE run = ? AND key IN ({marks})", (self.id, *keys)
        )
        read = reader(self.database)
        return {key: as_object(read(row)) for key, row in rows}

    def some_keys(self, most: int = 1000) -> list[str]:
        """Return the keys of the first results, to name them in a message."""
        query = "SELECT key FROM results WHERE run = ? LIMIT ?"
        return [key for (key,) in self.database.query(query, (self.id, most))]

    def keys_after(self, tick: int) -> set[str]:
        """Return the keys of the results that were recorded after a tick, which is a recent one."""
        keys, before = set[str](), 1 << 62
        while True:
            rows = self.database.query(
                "SELECT seq, tick, key FROM results WHERE run = ? AND seq < ? "
                "ORDER BY seq DESC LIMIT 64",
                (self.id, before),
            )
            for seq, recorded, key in rows:
                if recorded <= tick:
                    return keys
                keys.add(key)
                before = seq
            if not rows:
                return keys

    def count_results(self, keys: Sequence[str] | None = None) -> int:
        """Return how many results there are; with `keys`, at most a few thousand, of these."""
        which = "" if keys is None else f" AND key IN ({','.join('?' * len(keys))})"
        rows = self.database.query(
            f"SELECT COUNT(*) FROM results WHERE run = ?{which}", (self.id, *(keys or ()))
        )
        return int(rows[0][0])

    def count_accepted(self) -> int:
        """Return how many results are accepted."""
        rows = self.database.query(
            "SELECT COUNT(*) FROM results WHERE run = ? AND json_extract(row, '$.accepted')",
            (self.id,),
        )
        return int(rows[0][0])

    def notes(self, key: str | None = None) -> list[Note]:
        """Return what people noted on the results, or on one of them, oldest first."""
        return [note for note in self._reader.notes() if key in (None, note.key)]

    def calls(self, after: int = 0) -> Iterator[Call]:
        """Yield the calls that were answered, with sequence numbers greater than `after`."""
        return self._reader.calls(after)

    def calls_under(self, prefix: str) -> Iterator[Call]:
        """Yield the calls that were answered and whose paths begin with `prefix`, by path."""
        return self._reader.calls_under(prefix)

    def call(self, path: str) -> Call | None:
        """Return the call of a path; None where it has no answer yet."""
        return self._reader.find_call(path)

    def questions(self) -> list[Question]:
        """Return the questions that nobody has answered yet, oldest first."""
        rows = self.database.query(
            "SELECT path, data, created FROM requests "
            "WHERE run = ? AND action = 'ask' AND done IS NULL ORDER BY number",
            (self.id,),
        )
        asked = [(path, Fields(decode(data)), created) for path, data, created in rows]
        return [
            Question(path, data.text("question"), tuple(data.texts("options")), created)
            for path, data, created in asked
        ]

    def requests(self) -> list[Request]:
        """Return the requests to the run's driver and what came of them, oldest first."""
        rows = self.database.query(
            "SELECT number, action, data, created, done, answer, error FROM requests "
            "WHERE run = ? AND action <> 'ask' ORDER BY number",
            (self.id,),
        )
        return [_request(*row) for row in rows]

    def artifacts(self) -> list[ArtifactRow]:
        """Return the images, sounds and larger tensors of the run, in the order they came in."""
        return artifacts_of(self.database, self.id)

    def artifact(self, hash: str) -> Artifact:
        """Return the artifact with a hash, or with a hash that begins so.

        Raises `RunError` where the journal has none or several.
        """
        return find_artifact(self.database, hash)

    def checkpoints(self) -> list[CheckpointRow]:
        """Return the checkpoints that exist, oldest first."""
        return self._reader.checkpoints()

    def load(
        self, tick: int | None = None, position: int | None = None
    ) -> tuple[CheckpointRow, dict[str, Any]] | None:
        """Load the last checkpoint at or before a tick or position; None where there is none.

        A damaged file is skipped with a warning. Raises `RunError` where all are damaged.
        """
        damaged: list[str] = []
        tried: set[Path] = set()  # paths, as its driver may save the same tick again meanwhile
        while True:
            rows = [row for row in self.checkpoints() if row.path not in tried]
            rows = [row for row in rows if tick is None or row.tick <= tick]
            rows = [row for row in rows if position is None or row.position <= position]
            if not rows:
                break
            row = rows[-1]
            tried.add(row.path)
            state = self._load_one(row, damaged)
            if state is not None:
                return row, state
        if damaged:
            raise RunError(
                f"No checkpoint of the run {self.name!r} can be read. {' '.join(damaged)} "
                "Delete the run and start it again."
            )
        return None

    def _load_one(self, row: CheckpointRow, damaged: list[str]) -> dict[str, Any] | None:
        try:
            return load_state(row.path, crc=row.crc, artifact=self.artifact)
        except (RunError, OSError) as error:
            if all(row.path != other.path for other in self.checkpoints()):
                return None  # its driver has just replaced it
            damaged.append(str(error))
            warnings.warn(f"{error} An older checkpoint is used, if there is one.", stacklevel=3)
            return None


def _request(
    number: int,
    action: str,
    data: str | None,
    created: float,
    done: float | None,
    answer: str | None,
    error: str | None,
) -> Request:
    edits = None if data is None else as_object(decode(data))
    given = None if answer is None else decode(answer)
    return Request(number, action, edits, created, done, given, error)


RunSource = Run | Callable[[], Run]
"""A run, or a function that makes it: called when everything else is right."""


def all_runs(database: Database) -> list[Run]:
    """Return all runs of a journal, newest first."""
    rows = database.query("SELECT id FROM runs ORDER BY created DESC, rowid DESC")
    return [Run(database, row[0]) for row in rows]


def run_summaries(
    database: Database, kind: str | None, status: str | None, name: str | None
) -> list[RunSummary]:
    """Return the summaries of the runs that fit, newest first."""
    rows = database.query(
        f"SELECT {_COLUMNS}, (SELECT COUNT(*) FROM results WHERE run = runs.id), bytes + "
        "(SELECT COALESCE(SUM(bytes), 0) FROM checkpoints WHERE run = runs.id), "
        "(SELECT CASE WHEN json_valid(data) THEN "
        "CAST(json_extract(data, '$.question') AS TEXT) END FROM requests "
        "WHERE run = runs.id AND action = 'ask' AND done IS NULL ORDER BY number LIMIT 1) "
        "FROM runs WHERE (?1 IS NULL OR kind = ?1 OR kind GLOB ?1 || ' *') "
        "AND (?2 IS NULL OR name GLOB ?2) "
        "ORDER BY created DESC, rowid DESC",
        (kind, name),
    )
    found = (RunSummary(_row(database, row[:-3]), *row[-3:]) for row in rows)
    # The status is known only here: a run that is recorded as running may have been killed.
    return [each for each in found if status is None or each.row.status == status]
