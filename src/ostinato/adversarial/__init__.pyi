from .augment import augmented
from .conditions import ModeCollapse, Overpowered
from .config import AUGMENTATIONS, DuelConfig, GanTrainingRun
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
from .quality import Embed, SampleQuality, untrained_features
from .training_run import prepare_gan_training

__all__ = [
    "AUGMENTATIONS",
    "AdversarialLoss",
    "Discriminator",
    "Duel",
    "DuelConfig",
    "Embed",
    "GanConfig",
    "GanTrainingRun",
    "Generator",
    "Hinge",
    "ModeCollapse",
    "NonSaturating",
    "Overpowered",
    "Relativistic",
    "SampleQuality",
    "Score",
    "Term",
    "Wasserstein",
    "augmented",
    "gan_for",
    "latents",
    "load_generator",
    "loss_of",
    "prepare_gan_training",
    "save_generator",
    "untrained_features",
]
