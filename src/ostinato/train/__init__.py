"""Training as a process: mini-batches in an order that is a function of (seed, step)."""

from ostinato.settings import TrainingConfig
from ostinato.train.data import Example, conversation, examples, split, windows
from ostinato.train.masked import MaskedTask
from ostinato.train.optimisers import AdamW, Muon
from ostinato.train.order import Order
from ostinato.train.saving import save_model
from ostinato.train.task import Loss, Share, Task, TextTask
from ostinato.train.training import Training

__all__ = [
    "AdamW",
    "Example",
    "Loss",
    "MaskedTask",
    "Muon",
    "Order",
    "Share",
    "Task",
    "TextTask",
    "Training",
    "TrainingConfig",
    "conversation",
    "examples",
    "save_model",
    "split",
    "windows",
]
