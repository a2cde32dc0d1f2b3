"""What a journal holds, as values: the row of a run, and the entries of its log.

Knows no database: `RunReader` reads these, `RunTables` and `Journal` write what they hold.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple, cast

from ostinato.journal.stops import JSON, Stopped

Status = Literal["new", "running", "waiting", "paused", "interrupted", "stopped", "error"]
Keep = Literal["steps", "results"]
Verdict = Literal["accepted", "rejected", "edited"]
VERDICTS: tuple[Verdict, ...] = ("accepted", "rejected", "edited")


@dataclass(frozen=True, slots=True)
class RunRow:
    """The journal's row of a run, at one moment.

    `parent` is the id of the run that it was branched from and the tick, `caller` the id of the run
    that called it and the path of the call.
    """

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
    caller: tuple[str, str] | None = None
    brief: bool = False
    seq: int = 0

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
            "caller": list(self.caller) if self.caller else None,
            "brief": self.brief,
            "seq": self.seq,
            "created": self.created,
            "updated": self.updated,
        }


class RunSummary(NamedTuple):
    """A run's row, the number of its results, the bytes of its rows and checkpoints.

    `waits_for` is the oldest question that nobody has answered yet.
    """

    row: RunRow
    results: int
    bytes: int
    waits_for: str | None = None

    def to_json(self) -> dict[str, JSON]:
        """Return the row as a JSON object, with both numbers and the question."""
        more: dict[str, JSON] = {
            "results": self.results,
            "bytes": self.bytes,
            "waits_for": self.waits_for,
        }
        return {**self.row.to_json(), **more}


@dataclass(frozen=True, slots=True)
class ControlRequest:
    """A request to the process that drives a run: "pause", "stop" or "change".

    `number` is its row in the journal; None for a request of the driving process itself.
    """

    number: int | None
    action: str
    edits: dict[str, object] | None = None
    reason: str = ""


class Answered(NamedTuple):
    """A call as it is recorded: JSON texts, the words of an error, the id of a run it started.

    `tensors` are those that the answer refers to.
    """

    path: str
    arguments: str
    answer: str | None = None
    error: str | None = None
    child: str | None = None
    tensors: Sequence[Any] = ()


class Question(NamedTuple):
    """What a run asks a person; `options` are the answers that it takes, none for any."""

    path: str
    question: str
    options: tuple[str, ...]
    created: float


class Request(NamedTuple):
    """A request to a run's driver, and what came of it; `done` is when, None while it waits."""

    number: int
    action: str
    data: dict[str, Any] | None
    created: float
    done: float | None
    answer: JSON
    error: str | None


# The entries of a log ---------------------------------------------------------------------------


class _Entry:
    """An entry of a log, a frozen dataclass: `entry` is its kind in a word."""

    __slots__ = ()
    entry: ClassVar[str]

    def to_json(self) -> dict[str, Any]:
        """Return the entry as a JSON object; its number and kind come first."""
        values = {each.name: getattr(self, each.name) for each in fields(cast(Any, self))}
        path = {"path": str(values["path"])} if "path" in values else {}
        return {"seq": values.pop("seq"), "entry": self.entry, **values, **path}


@dataclass(frozen=True, slots=True)
class StepRecord(_Entry):
    """A step as it was recorded. Two are equal where their contents are."""

    entry: ClassVar[str] = "step"

    tick: int
    position: int
    report: dict[str, Any]
    seq: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class Event(_Entry):
    """Something that happened in a run besides its steps."""

    entry: ClassVar[str] = "event"

    seq: int
    tick: int
    name: str
    data: dict[str, Any]
    created: float


@dataclass(frozen=True, slots=True)
class Result(_Entry):
    """A finished item: its key, and its row."""

    entry: ClassVar[str] = "result"

    seq: int
    tick: int
    key: str
    row: dict[str, Any]
    created: float


@dataclass(frozen=True, slots=True)
class CheckpointRow(_Entry):
    """A saved state: `bytes` long, written at `created` (seconds since 1970)."""

    entry: ClassVar[str] = "checkpoint"

    tick: int
    position: int
    path: Path
    bytes: int
    created: float
    crc: int
    seq: int = 0


@dataclass(frozen=True, slots=True)
class Call(_Entry):
    """A call that has been answered, or has failed with an `error` that was recorded.

    `child` is the id of the run that it started, `author` the person who answered a question.
    """

    entry: ClassVar[str] = "call"

    seq: int
    tick: int
    path: str
    arguments: dict[str, Any]
    answer: JSON
    error: str | None
    child: str | None
    author: str | None
    created: float


@dataclass(frozen=True, slots=True)
class Note(_Entry):
    """What a person says of a result; `value` holds the fields that were edited by hand."""

    entry: ClassVar[str] = "note"

    seq: int
    key: str
    verdict: Verdict
    value: dict[str, Any] | None
    text: str
    author: str
    created: float


LogEntry = StepRecord | Event | Result | CheckpointRow | Call | Note
"""An entry of a run's log: each has its number, `seq`, and its kind in a word, `entry`."""
