"""The engine: one loop for every process, its stop conditions, strategies and lanes."""

from ostinato.loop.actions import (
    OUT_OF_ROUNDS,
    Accept,
    Action,
    Attempt,
    GiveUp,
    GoBack,
    History,
    OnStop,
    StartOver,
    accept,
    go_back,
)
from ostinato.loop.check import (
    Check,
    Item,
    PrefixStatus,
    PrefixVerdict,
    RequiredText,
    Span,
    Text,
    Verdict,
)
from ostinato.loop.checkpoint_schedule import CheckpointSchedule
from ostinato.loop.conditions.base import (
    AllOf,
    AnyOf,
    Condition,
    Never,
    Observed,
    Predicate,
    State,
    as_condition,
    numbers,
)
from ostinato.loop.conditions.budgets import Budget, Epochs, Seconds, Steps
from ostinato.loop.conditions.metrics import (
    Converges,
    Exceeds,
    NoProgress,
    NotFinite,
    Passes,
    Phrase,
    Plateau,
    Reaches,
    judged,
)
from ostinato.loop.conditions.parser import parse, readable, up_to_date
from ostinato.loop.finished import items_done
from ostinato.loop.items import Arrivals, UniqueItems, content_keys, digest
from ostinato.loop.lane_result import LaneResult
from ostinato.loop.lane_state import add_up, is_end
from ostinato.loop.lanes import Lanes
from ostinato.loop.loop import Loop
from ostinato.loop.policy import Judge, Policy
from ostinato.loop.process import (
    Exhausted,
    ExternalSource,
    Lane,
    LaneProcess,
    Process,
    Report,
    SparseMetrics,
)
from ostinato.loop.rng import check_seed, fold_in, uniform
from ostinato.loop.run_setup import compute_mode
from ostinato.loop.signals import Pausable, SignalState, ends_by_signal, sigterm_interrupts
from ostinato.loop.step import LaneStep, Step
from ostinato.loop.timeline import Edits, Timeline
from ostinato.loop.work import ItemsWork, Work

__all__ = [
    "OUT_OF_ROUNDS",
    "Accept",
    "Action",
    "AllOf",
    "AnyOf",
    "Arrivals",
    "Attempt",
    "Budget",
    "Check",
    "CheckpointSchedule",
    "Condition",
    "Converges",
    "Edits",
    "Epochs",
    "Exceeds",
    "Exhausted",
    "ExternalSource",
    "GiveUp",
    "GoBack",
    "History",
    "Item",
    "ItemsWork",
    "Judge",
    "Lane",
    "LaneProcess",
    "LaneResult",
    "LaneStep",
    "Lanes",
    "Loop",
    "Never",
    "NoProgress",
    "NotFinite",
    "Observed",
    "OnStop",
    "Passes",
    "Pausable",
    "Phrase",
    "Plateau",
    "Policy",
    "Predicate",
    "PrefixStatus",
    "PrefixVerdict",
    "Process",
    "Reaches",
    "Report",
    "RequiredText",
    "Seconds",
    "SignalState",
    "Span",
    "SparseMetrics",
    "StartOver",
    "State",
    "Step",
    "Steps",
    "Text",
    "Timeline",
    "UniqueItems",
    "Verdict",
    "Work",
    "accept",
    "add_up",
    "as_condition",
    "check_seed",
    "compute_mode",
    "content_keys",
    "digest",
    "ends_by_signal",
    "fold_in",
    "go_back",
    "is_end",
    "items_done",
    "judged",
    "numbers",
    "parse",
    "readable",
    "sigterm_interrupts",
    "uniform",
    "up_to_date",
]
