"""The record of runs: a SQLite file with their steps, events, results and checkpoints."""

from ostinato.journal.checkpoint import load_state, save_state
from ostinato.journal.edits import EditKind
from ostinato.journal.encoding import encode, valid
from ostinato.journal.fields import Fields
from ostinato.journal.journal import DEFAULT, Journal, safe_name
from ostinato.journal.recorded_tensor import is_recorded_tensor, shortened, tensor_of
from ostinato.journal.run import CheckpointRow, Run, RunRow, RunSource, RunSummary, StepRecord
from ostinato.journal.session import RunSession
from ostinato.journal.specification import (
    Difference,
    Place,
    RunConfig,
    config_from_json,
    config_to_json,
    differences,
    places_outside,
    require_same,
)
from ostinato.journal.stops import JSON, PRECEDENCE, StopKind, Stopped, first
from ostinato.journal.tables import ControlRequest

__all__ = [
    "DEFAULT",
    "JSON",
    "PRECEDENCE",
    "CheckpointRow",
    "ControlRequest",
    "Difference",
    "EditKind",
    "Fields",
    "Journal",
    "Place",
    "Run",
    "RunConfig",
    "RunRow",
    "RunSession",
    "RunSource",
    "RunSummary",
    "StepRecord",
    "StopKind",
    "Stopped",
    "config_from_json",
    "config_to_json",
    "differences",
    "encode",
    "first",
    "is_recorded_tensor",
    "load_state",
    "places_outside",
    "require_same",
    "safe_name",
    "save_state",
    "shortened",
    "tensor_of",
    "valid",
]
