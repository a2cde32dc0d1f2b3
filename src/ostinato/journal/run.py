"""A run: a view on one row of the journal and what belongs to it. Reads; `Journal` has the verbs.

Many processes may look at a run while one drives it.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any, Literal, NamedTuple

from ostinato.errors import RunError
from ostinato.journal.columns import decode_block
from ostinato.journal.database import Database
from ostinato.journal.encoding import decode
from ostinato.journal.lock import holder
from ostinato.journal.stops import JSON, Stopped

Status = Literal["new", "running", "paused", "interrupted", "stopped", "error"]
Keep = Literal["steps", "results"]
PAGE = 64  # rows read at once: no transaction stays open while the caller handles a row


@dataclass(frozen=True, slots=True)
class RunRow:
    """The journal's row of a run, at one moment."""

    id: str
    name: str
    kind: str
    spec: dict[str, JSON]
    status: Status
    tick: int
    position: int
    stopped: Stopped | None
    parent: tuple[str, int] | None
    created: float
    updated: float

    def to_json(self) -> dict[str, JSON]:
        """Return the row as a JSON object."""
        return {
            "id": self.id,
            "name": self.name,
            "kind": self.kind,
            "spec": self.spec,
            "status": self.status,
            "tick": self.tick,
            "position": self.position,
            "stopped": self.stopped.to_json() if self.stopped else None,
            "parent": list(self.parent) if self.parent else None,
            "created": self.created,
            "updated": self.updated,
        }


class RunSummary(NamedTuple):
    """A run's row, the number of its results, and the bytes of its rows and checkpoints."""

    row: RunRow
    results: int
    bytes: int

    def to_json(self) -> dict[str, JSON]:
        """Return the row as a JSON object, with both numbers."""
        return {**self.row.to_json(), "results": self.results, "bytes": self.bytes}


@dataclass(frozen=True, slots=True)
class StepRecord:
    """A step as it was recorded."""

    tick: int
    position: int
    report: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened in a run besides its steps."""

    seq: int
    tick: int
    name: str
    data: dict[str, Any]
    created: float


@dataclass(frozen=True, slots=True)
class CheckpointRow:
    """A saved state: `bytes` long, written at `created` (seconds since 1970)."""

    tick: int
    position: int
    path: Path
    bytes: int
    created: float
    crc: int


_COLUMNS = (
    "id, name, kind, spec, status, tick, position, stopped, parent, parent_tick, created, updated"
)


def _row(database: Database, values: tuple[Any, ...]) -> RunRow:
    id, name, kind, spec, status, tick, position, stopped, parent, at, created, updated = values
    # A killed driver could not record its end, but the system released its lock.
    if status == "running" and holder(database.folder_of(id) / "lock") is None:
        status = "interrupted"
    return RunRow(
        id=id,
        name=name,
        kind=kind,
        spec=decode(spec),
        status=status,
        tick=tick,
        position=position,
        stopped=Stopped.from_json(decode(stopped)) if stopped else None,
        parent=(parent, at) if parent is not None else None,
        created=created,
        updated=updated,
    )


class Run:
    """One execution recorded in a journal. Every property reads the journal again."""

    def __init__(self, database: Database, id: str) -> None:
        self.database = database
        self.id = id
        self.folder = database.folder_of(id)

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
        return str(decode(rows[0][0])["until"]) if rows else None

    @property
    def pending_edits(self) -> dict[str, object] | None:
        """A branch's edits that are not applied yet; None for any other run."""
        rows = self.database.query("SELECT edits FROM runs WHERE id = ?", (self.id,))
        if not rows:
            raise RunError(f"The run {self.id} is not in {self.database.path}: it was deleted.")
        return None if rows[0][0] is None else dict(decode(rows[0][0]))

    @property
    def parent(self) -> tuple[str, int] | None:
        """The id of the run that this one branched from, and the tick."""
        return self.now().parent

    def parent_run(self) -> Run | None:
        """Return the run that this one branched from; None for no branch, or a deleted parent."""
        origin = self.now().parent
        known = origin and self.database.query("SELECT 1 FROM runs WHERE id = ?", origin[:1])
        return Run(self.database, origin[0]) if origin and known else None

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

    def steps(self, after: int = 0) -> Iterator[StepRecord]:
        """Yield the recorded steps of ticks greater than `after`, in order."""
        while True:
            # Four blocks of up to 2,048 steps at a time: no transaction stays open between them.
            rows = self.database.query(
                "SELECT last, data FROM steps WHERE run = ? AND last > ? ORDER BY first LIMIT 4",
                (self.id, after),
            )
            for last, data in rows:
                for tick, position, report in decode_block(data):
                    if tick > after:
                        yield StepRecord(tick, position, report)
                after = last
            if not rows:
                return

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
        while True:
            rows = self.database.query(
                "SELECT seq, tick, name, data, created FROM events WHERE run = ? AND seq > ? "
                "ORDER BY seq LIMIT ?",
                (self.id, after, PAGE),
            )
            for seq, tick, name, data, created in rows:
                yield Event(seq, tick, name, decode(data), created)
                after = seq
            if len(rows) < PAGE:
                return

    def results(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield (key, row) of every result, in the order in which they were recorded."""
        after = 0
        while True:
            rows = self.database.query(
                "SELECT number, key, row FROM results WHERE run = ? AND number > ? "
                "ORDER BY number LIMIT ?",
                (self.id, after, PAGE),
            )
            for number, key, row in rows:
                yield key, decode(row)
                after = number
            if len(rows) < PAGE:
                return

    def result(self, key: str) -> dict[str, Any] | None:
        """Return one result, None where there is none yet."""
        rows = self.database.query(
            "SELECT row FROM results WHERE run = ? AND key = ?", (self.id, key)
        )
        return decode(rows[0][0]) if rows else None

    def result_keys(self) -> set[str]:
        """Return the keys of the results."""
        return {
            key
            for (key,) in self.database.query("SELECT key FROM results WHERE run = ?", (self.id,))
        }

    def count_results(self) -> int:
        """Return how many results there are."""
        rows = self.database.query("SELECT COUNT(*) FROM results WHERE run = ?", (self.id,))
        return int(rows[0][0])

    def checkpoints(self) -> list[CheckpointRow]:
        """Return the checkpoints that exist, oldest first."""
        rows = self.database.query(
            "SELECT tick, position, file, bytes, created, crc FROM checkpoints WHERE run = ? "
            "ORDER BY tick",
            (self.id,),
        )
        return [
            CheckpointRow(tick, position, self._inside(file), size, created, crc)
            for tick, position, file, size, created, crc in rows
        ]

    def _inside(self, file: str) -> Path:
        # A journal may come from somebody else: a row must not lead out of the run's folder.
        if Path(file).name != file or file.startswith("."):
            raise RunError(f"A checkpoint must be a file of the run's folder, got {file!r}.")
        return self.folder / file

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
        from ostinato.journal.checkpoint import load_state

        try:
            return load_state(row.path, crc=row.crc)
        except (RunError, OSError) as error:
            if all(row.path != other.path for other in self.checkpoints()):
                return None  # its driver has just replaced it
            damaged.append(str(error))
            warnings.warn(f"{error} An older checkpoint is used, if there is one.", stacklevel=3)
            return None


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
        "(SELECT COALESCE(SUM(bytes), 0) FROM checkpoints WHERE run = runs.id) FROM runs "
        "WHERE (?1 IS NULL OR kind = ?1) AND (?2 IS NULL OR name GLOB ?2) "
        "ORDER BY created DESC, rowid DESC",
        (kind, name),
    )
    found = (RunSummary(_row(database, row[:-2]), *row[-2:]) for row in rows)
    # The status is known only here: a run that is recorded as running may have been killed.
    return [each for each in found if status is None or each.row.status == status]
