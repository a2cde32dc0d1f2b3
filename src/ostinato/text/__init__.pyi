from .config import TextTrainingConfig
from .filling import GAP, build_fill, fill_gaps
from .runs import FillRun, GenerateRun
from .training import TextTraining, earlier_fingerprint, fingerprint, sample_prompt, set_up
from .unmask import FillConfig, MaskedText, Unmask
from .writing import DEFAULT_LENGTH, build_generate, write

__all__ = [
    "DEFAULT_LENGTH",
    "GAP",
    "FillConfig",
    "FillRun",
    "GenerateRun",
    "MaskedText",
    "TextTraining",
    "TextTrainingConfig",
    "Unmask",
    "build_fill",
    "build_generate",
    "earlier_fingerprint",
    "fill_gaps",
    "fingerprint",
    "sample_prompt",
    "set_up",
    "write",
]
