from .losses import (
    AdversarialLoss,
    Hinge,
    NonSaturating,
    Relativistic,
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

__all__ = [
    "AdversarialLoss",
    "Discriminator",
    "GanConfig",
    "Generator",
    "Hinge",
    "NonSaturating",
    "Relativistic",
    "Term",
    "Wasserstein",
    "gan_for",
    "latents",
    "load_generator",
    "save_generator",
]
