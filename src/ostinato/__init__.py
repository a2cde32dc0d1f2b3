"""Ostinato: every generative process as one kind of loop, until it is good enough.

The engine's names are here; the families are `ostinato.text`, `ostinato.refine`,
`ostinato.train`, `ostinato.models` and `ostinato.checks`, imported where they are needed.
"""

from ostinato.errors import OstinatoError
from ostinato.journal import StopKind, Stopped
from ostinato.loop import (
    Budget,
    CheckpointSchedule,
    Condition,
    Converges,
    Epochs,
    Exceeds,
    GiveUp,
    GoBack,
    Lanes,
    Loop,
    NoProgress,
    NotFinite,
    Passes,
    Phrase,
    Plateau,
    Process,
    Reaches,
    Seconds,
    StartOver,
    Step,
    Steps,
    go_back,
    parse,
)

__version__ = "0.1.0"

__all__ = [
    "Budget",
    "CheckpointSchedule",
    "Condition",
    "Converges",
    "Epochs",
    "Exceeds",
    "GiveUp",
    "GoBack",
    "Lanes",
    "Loop",
    "NoProgress",
    "NotFinite",
    "OstinatoError",
    "Passes",
    "Phrase",
    "Plateau",
    "Process",
    "Reaches",
    "Seconds",
    "StartOver",
    "Step",
    "Steps",
    "StopKind",
    "Stopped",
    "go_back",
    "parse",
]
