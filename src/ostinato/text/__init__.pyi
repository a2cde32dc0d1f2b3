from .config import TextTrainingConfig
from .filling import GAP, fill_gaps
from .training import TextTraining, fingerprint, set_up
from .unmask import FillConfig, MaskedText, Unmask
from .writing import DEFAULT_LENGTH, write

__all__ = [
    "DEFAULT_LENGTH",
    "GAP",
    "FillConfig",
    "MaskedText",
    "TextTraining",
    "TextTrainingConfig",
    "Unmask",
    "fill_gaps",
    "fingerprint",
    "set_up",
    "write",
]
