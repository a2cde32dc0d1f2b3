from .batch_cursor import Batch, BatchCursor
from .batch_sampler import BatchSampler
from .config import GradientConfig, TrainerConfig, TrainingConfig, TrainingRun, argument, option
from .data import Example, conversation, examples, read_corpus, split, windows
from .masked_text import MaskedTextTask
from .optimizers import AdamW, Muon
from .parts import Editable, Part, Parts, PartsProcess
from .plan import Plannable, planned, prepare, with_plan_of
from .precision import Precision
from .recovery import go_back
from .schedule import Schedule
from .task import Loss, Share, Task, TextTask, save_model
from .trainer import Trainer
from .training import Training
from .training_run import (
    HASHED,
    TrainingParts,
    TrainingWork,
    build_training,
    require_same_data,
    task_parts,
)
from .updater import Updater, not_negative
from .values import Values
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
    "AdamW",
    "Averages",
    "Batch",
    "BatchCursor",
    "BatchSampler",
    "BestWeights",
    "CurrentWeights",
    "Editable",
    "Example",
    "GradientConfig",
    "Loss",
    "MaskedTextTask",
    "Muon",
    "Part",
    "Parts",
    "PartsProcess",
    "Plannable",
    "Precision",
    "Schedule",
    "Share",
    "Task",
    "TextTask",
    "Trainer",
    "TrainerConfig",
    "Training",
    "TrainingConfig",
    "TrainingParts",
    "TrainingRun",
    "TrainingWork",
    "Updater",
    "Validation",
    "Values",
    "Weights",
    "argument",
    "build_training",
    "conversation",
    "copied",
    "examples",
    "go_back",
    "load_weights",
    "not_negative",
    "option",
    "planned",
    "prepare",
    "read_corpus",
    "require_same_data",
    "save_model",
    "split",
    "task_parts",
    "trainable",
    "using",
    "windows",
    "with_plan_of",
]
