from .batch_cursor import Batch, BatchCursor
from .batch_sampler import BatchSampler
from .config import TrainingConfig, TrainingRun, option
from .data import Example, conversation, examples, read_corpus, split, windows
from .masked_text import MaskedTextTask
from .optimizers import AdamW, Muon
from .parts import Editable, Part, Parts
from .plan import PLANNED, Plannable, planned, require_room, with_plan_of
from .precision import Precision
from .recovery import go_back
from .schedule import Schedule
from .task import Loss, Share, Task, TextTask, save_model
from .trainer import Trainer
from .training import Training
from .training_run import HASHED, TrainingParts, TrainingWork, build_training, require_same_data
from .updater import Updater
from .weights import (
    Averages,
    BestWeights,
    CurrentWeights,
    Validation,
    Weights,
    copied,
    load_weights,
    trainable,
    using,
)

__all__ = [
    "HASHED",
    "PLANNED",
    "AdamW",
    "Averages",
    "Batch",
    "BatchCursor",
    "BatchSampler",
    "BestWeights",
    "CurrentWeights",
    "Editable",
    "Example",
    "Loss",
    "MaskedTextTask",
    "Muon",
    "Part",
    "Parts",
    "Plannable",
    "Precision",
    "Schedule",
    "Share",
    "Task",
    "TextTask",
    "Trainer",
    "Training",
    "TrainingConfig",
    "TrainingParts",
    "TrainingRun",
    "TrainingWork",
    "Updater",
    "Validation",
    "Weights",
    "build_training",
    "conversation",
    "copied",
    "examples",
    "go_back",
    "load_weights",
    "option",
    "planned",
    "read_corpus",
    "require_room",
    "require_same_data",
    "save_model",
    "split",
    "trainable",
    "using",
    "windows",
    "with_plan_of",
]
