"""The record of runs: a SQLite file with their steps, events, results, checkpoints and calls."""

from ostinato.journal.artifacts.artifact import (
    Artifact,
    Sound,
    is_recorded_tensor,
    tensor_of,
    with_tensors,
)
from ostinato.journal.artifacts.recorded_tensor import shortened
from ostinato.journal.artifacts.rows import ArtifactRow
from ostinato.journal.comparison import (
    Difference,
    amended,
    differences,
    require_same,
    require_unchanged,
)
from ostinato.journal.creation import safe_name
from ostinato.journal.edits import EditKind
from ostinato.journal.encoding import encode, encode_exactly, valid
from ostinato.journal.fields import Fields
from ostinato.journal.journal import Journal
from ostinato.journal.place import DEFAULT, runs_command
from ostinato.journal.records import (
    Call,
    CheckpointRow,
    ControlRequest,
    Event,
    LogEntry,
    Note,
    Question,
    Request,
    Result,
    RunRow,
    RunSummary,
    StepRecord,
    Verdict,
)
from ostinato.journal.removal import Retention
from ostinato.journal.run import Run, RunSource
from ostinato.journal.session import RunSession
from ostinato.journal.specification import (
    Place,
    RunConfig,
    beside,
    chosen_fields,
    config_from_json,
    config_to_json,
    each_beside,
    places_outside,
)
from ostinato.journal.state.checkpoint import load_state, save_state
from ostinato.journal.state.codec import Unchanging
from ostinato.journal.stops import JSON, PRECEDENCE, StopKind, Stopped, first

__all__ = [
    "DEFAULT",
    "JSON",
    "PRECEDENCE",
    "Artifact",
    "ArtifactRow",
    "Call",
    "CheckpointRow",
    "ControlRequest",
    "Difference",
    "EditKind",
    "Event",
    "Fields",
    "Journal",
    "LogEntry",
    "Note",
    "Place",
    "Question",
    "Request",
    "Result",
    "Retention",
    "Run",
    "RunConfig",
    "RunRow",
    "RunSession",
    "RunSource",
    "RunSummary",
    "Sound",
    "StepRecord",
    "StopKind",
    "Stopped",
    "Unchanging",
    "Verdict",
    "amended",
    "beside",
    "chosen_fields",
    "config_from_json",
    "config_to_json",
    "differences",
    "each_beside",
    "encode",
    "encode_exactly",
    "first",
    "is_recorded_tensor",
    "load_state",
    "places_outside",
    "require_same",
    "require_unchanged",
    "runs_command",
    "safe_name",
    "save_state",
    "shortened",
    "tensor_of",
    "valid",
    "with_tensors",
]
