from .config import FillRun, GenerateRun, TextTrainingConfig, TextTrainingRun
from .filling import GAP, fill_gaps
from .sampling_run import build_fill, build_generate, write_at_temperatures
from .training import TextTraining, sample_prompt, set_up
from .training_run import prepare_text_training
from .unmask import FillConfig, MaskedText, Unmask
from .writing import DEFAULT_LENGTH, TextLoop, write

__all__ = [
    "DEFAULT_LENGTH",
    "GAP",
    "FillConfig",
    "FillRun",
    "GenerateRun",
    "MaskedText",
    "TextLoop",
    "TextTraining",
    "TextTrainingConfig",
    "TextTrainingRun",
    "Unmask",
    "build_fill",
    "build_generate",
    "fill_gaps",
    "prepare_text_training",
    "sample_prompt",
    "set_up",
    "write",
    "write_at_temperatures",
]
