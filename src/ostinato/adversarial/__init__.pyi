from .augment import AdaptiveProbability, augmented
from .conditions import ModeCollapse, Overpowered
from .config import AUGMENTATIONS, DuelConfig, GanTrainingRun, SampleGanRun
from .duel import Duel, loss_of
from .losses import (
    AdversarialLoss,
    Hinge,
    NonSaturating,
    Relativistic,
    Score,
    Term,
    Wasserstein,
)
from .networks import (
    Discriminator,
    GanConfig,
    Generator,
    gan_for,
    latents,
    load_generator,
    save_generator,
)
from .quality import Classify, Embed, SampleQuality, untrained_features
from .sampling import Generate, draw_again
from .sampling_run import build_sample_gan, generator_digest
from .training_run import duel_failure, prepare_gan_training, rescue

__all__ = [
    "AUGMENTATIONS",
    "AdaptiveProbability",
    "AdversarialLoss",
    "Classify",
    "Discriminator",
    "Duel",
    "DuelConfig",
    "Embed",
    "GanConfig",
    "GanTrainingRun",
    "Generate",
    "Generator",
    "Hinge",
    "ModeCollapse",
    "NonSaturating",
    "Overpowered",
    "Relativistic",
    "SampleGanRun",
    "SampleQuality",
    "Score",
    "Term",
    "Wasserstein",
    "augmented",
    "build_sample_gan",
    "draw_again",
    "duel_failure",
    "gan_for",
    "generator_digest",
    "latents",
    "load_generator",
    "loss_of",
    "prepare_gan_training",
    "rescue",
    "save_generator",
    "untrained_features",
]
