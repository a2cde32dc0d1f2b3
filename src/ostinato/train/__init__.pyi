from .batch_sampler import BatchSampler
from .config import TrainingConfig, TrainingRun, option
from .data import Example, conversation, examples, read_corpus, split, windows
from .masked_text import MaskedTextTask
from .optimizers import AdamW, Muon
from .plan import PLANNED, Plannable, planned, require_room, with_plan_of
from .task import Loss, Share, Task, TextTask, save_model
from .training import Training
from .training_run import HASHED, TrainingParts, TrainingWork, build_training, require_same_data

__all__ = [
    "HASHED",
    "PLANNED",
    "AdamW",
    "BatchSampler",
    "Example",
    "Loss",
    "MaskedTextTask",
    "Muon",
    "Plannable",
    "Share",
    "Task",
    "TextTask",
    "Training",
    "TrainingConfig",
    "TrainingParts",
    "TrainingRun",
    "TrainingWork",
    "build_training",
    "conversation",
    "examples",
    "option",
    "planned",
    "read_corpus",
    "require_room",
    "require_same_data",
    "save_model",
    "split",
    "windows",
    "with_plan_of",
]
