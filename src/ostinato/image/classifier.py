"""A small image classifier, for the check `ClassifiedAs`.

Convolutions, each followed by 2 x 2 pooling, and one linear layer. Images are in [-1, 1], as
denoisers make them. Knows no check and no training.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ostinato.arguments import require_at_least, require_types
from ostinato.errors import InputError
from ostinato.models import load_network, network_folder, save_network

SHIPPED = Path(__file__).parent / "shipped" / "classifiers"
ARCHITECTURE = "ostinato.Classifier"


@dataclass(frozen=True, kw_only=True)
class ClassifierConfig:
    """The architecture of a classifier; `names` are its classes by index.

    `widths` are the channels of the convolutions; each halves the side of `size` pixels.
    """

    names: tuple[str, ...]
    channels: int = 1
    size: int = 28
    widths: tuple[int, ...] = (24, 48, 64)

    def __post_init__(self) -> None:
        require_types(self)
        object.__setattr__(self, "names", tuple(self.names))
        object.__setattr__(self, "widths", tuple(self.widths))
        if len(self.names) < 2 or len(set(self.names)) < len(self.names):
            raise InputError(f"names must be at least two, all different, got {self.names}.")
        require_at_least(1, channels=self.channels)
        if not self.widths or min(self.widths) < 1:
            raise InputError(f"widths must be at least one, each above 0, got {self.widths}.")
        if self.size < 2 ** len(self.widths):
            raise InputError(
                f"size must be at least {2 ** len(self.widths)} with {len(self.widths)} widths, "
                f"each of which halves it, got {self.size}."
            )


class Classifier(nn.Module):
    """The network: logits (B, classes) of images (B, channels, size, size) in [-1, 1]."""

    def __init__(self, config: ClassifierConfig, *, seed: int = 0) -> None:
        super().__init__()
        self.config = config
        widths = (config.channels, *config.widths)
        side = config.size // 2 ** len(config.widths)
        with torch.random.fork_rng(devices=[]):  # the caller's random state stays as it is
            torch.manual_seed(seed)
            self.convolutions = nn.ModuleList(
                nn.Conv2d(a, b, 3, padding=1) for a, b in pairwise(widths)
            )
            self.out = nn.Linear(widths[-1] * side**2, len(config.names))

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the classes, by index."""
        return self.config.names

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits (B, classes) of x (B, C, S, S)."""
        logits: Tensor = self.out(self.features(x))
        return logits

    def features(self, x: Tensor) -> Tensor:
        """Return what the logits are a product of (B, F), for x (B, C, S, S)."""
        for convolution in self.convolutions:
            x = F.max_pool2d(F.relu(convolution(x)), 2)
        return x.flatten(1)


def save_classifier(
    folder: str | Path, network: Classifier, *, dtype: torch.dtype | None = None
) -> Path:
    """Write `config.json` and `model.safetensors`; return the folder.

    `dtype` is that of the file, such as a half precision; None keeps the network's.
    """
    return save_network(folder, ARCHITECTURE, network.config, network, dtype=dtype)


def load_classifier(name: str | Path = "digits") -> Classifier:
    """Load the classifier of a folder, or a shipped one such as `digits`, in float32.

    Raises `ModelError` for a folder that holds none, a damaged one, or another layout.
    """
    return load_network(classifier_folder(name), ARCHITECTURE, ClassifierConfig, Classifier)


def classifier_folder(name: str | Path) -> Path:
    """Return the folder of a classifier by its path or shipped name. Raises `ModelError`."""
    made_by = "`ostinato.image.save_classifier`"
    return network_folder(name, "A classifier", made_by, shipped=SHIPPED)
