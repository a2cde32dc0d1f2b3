"""Ostinato: every generative process as one kind of loop, until it is good enough.

The engine's names are here; the families are `ostinato.text`, `ostinato.refine`,
`ostinato.train`, `ostinato.models` and `ostinato.checks`, imported where they are needed.
"""

from ostinato.errors import OstinatoError
from ostinato.loop import (
    Budget,
    Condition,
    Converges,
    Epochs,
    Every,
    GiveUp,
    GoBack,
    Kind,
    Lanes,
    Loop,
    NoProgress,
    NotFinite,
    Passes,
    Past,
    Phrase,
    Plateau,
    Process,
    Reaches,
    Seconds,
    StartOver,
    Step,
    Steps,
    Stopped,
    go_back,
    parse,
)

__version__ = "0.1.0"

__all__ = [
    "Budget",
    "Condition",
    "Converges",
    "Epochs",
    "Every",
    "GiveUp",
    "GoBack",
    "Kind",
    "Lanes",
    "Loop",
    "NoProgress",
    "NotFinite",
    "OstinatoError",
    "Passes",
    "Past",
    "Phrase",
    "Plateau",
    "Process",
    "Reaches",
    "Seconds",
    "StartOver",
    "Step",
    "Steps",
    "Stopped",
    "go_back",
    "parse",
]
