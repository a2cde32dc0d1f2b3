from .batch_sampler import BatchSampler
from .config import TrainingConfig, option
from .data import Example, conversation, examples, read_corpus, split, windows
from .masked_text import MaskedTextTask
from .optimizers import AdamW, Muon
from .task import Loss, Share, Task, TextTask, save_model
from .training import Training

__all__ = [
    "AdamW",
    "BatchSampler",
    "Example",
    "Loss",
    "MaskedTextTask",
    "Muon",
    "Share",
    "Task",
    "TextTask",
    "Training",
    "TrainingConfig",
    "conversation",
    "examples",
    "option",
    "read_corpus",
    "save_model",
    "split",
    "windows",
]
