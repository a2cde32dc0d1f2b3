from .config import TextTrainingConfig
from .filling import GAP, build_fill, fill_gaps
from .runs import FillRun
from .training import TextTraining, earlier_fingerprint, fingerprint, sample_prompt, set_up
from .unmask import FillConfig, MaskedText, Unmask
from .writing import DEFAULT_LENGTH, write

__all__ = [
    "DEFAULT_LENGTH",
    "GAP",
    "FillConfig",
    "FillRun",
    "MaskedText",
    "TextTraining",
    "TextTrainingConfig",
    "Unmask",
    "build_fill",
    "earlier_fingerprint",
    "fill_gaps",
    "fingerprint",
    "sample_prompt",
    "set_up",
    "write",
]
