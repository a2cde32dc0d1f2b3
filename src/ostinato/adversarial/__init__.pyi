from .augment import augmented
from .config import AUGMENTATIONS, DuelConfig
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

__all__ = [
    "AUGMENTATIONS",
    "AdversarialLoss",
    "Discriminator",
    "Duel",
    "DuelConfig",
    "Embed",
    "GanConfig",
    "Generator",
    "Hinge",
    "NonSaturating",
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
    "save_generator",
    "untrained_features",
]
