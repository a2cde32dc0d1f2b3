from .losses import (
    AdversarialLoss,
    Hinge,
    NonSaturating,
    Relativistic,
    Term,
    Wasserstein,
)

__all__ = [
    "AdversarialLoss",
    "Hinge",
    "NonSaturating",
    "Relativistic",
    "Term",
    "Wasserstein",
]
