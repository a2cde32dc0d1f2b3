"""What is measured of a generator's samples, beside held-out images. Knows no training."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import torch
from torch import Tensor

from ostinato.adversarial.networks import Discriminator, GanConfig
from ostinato.image import Images, diversity, frechet_distance, precision_recall

Embed = Callable[[Tensor], Tensor]
"""Features (B, F) of images (B, C, H, W) in [-1, 1], which are on the CPU."""

FEATURES, WIDTH = 64, 32  # of an untrained network; its channels at the finest level
BATCH = 250  # images whose features are computed at once


def untrained_features(config: GanConfig) -> Embed:
    """Return features of a network with random weights, always the same: for images of no class.

    Naeem et al., "Reliable Fidelity and Diversity Metrics for Generative Models" (2020), section
    4: they measure where no trained features fit the images. Those of a discriminator in training
    would change, and distances of two steps could not be compared.
    """
    # Few features: the distance of two real sets grows with their number over that of images.
    # The widths are always the same, so that distances in two duels can be compared.
    widths = tuple(WIDTH * 2**level for level in range(len(config.widths)))
    judged = replace(config, discriminator_widths=widths, features=FEATURES)
    return Discriminator(judged, seed=0).eval().features


class SampleQuality:
    """Compares samples with held-out images, by features.

    Each feature is scaled to a variance of 1 over the held-out images.
    """

    def __init__(self, embed: Embed, held_out: Images) -> None:
        self._embed, self.labels = embed, held_out.labels
        features = self._features(held_out.clean())
        # A feature that never varies says nothing, and would be divided by zero.
        spread = features.std(0)
        self._scale = torch.where(spread > 1e-6, 1 / spread.clamp(min=1e-6), 0.0)
        self._real = features * self._scale
        self._real_diversity = diversity(self._real, self.labels)

    def measure(self, images: Tensor) -> Mapping[str, float]:
        """Return `fd`, `precision` and `recall` of samples (N, C, H, W)."""
        features = self._features(images) * self._scale
        precision, recall = precision_recall(self._real, features)
        distance = frechet_distance(features, self._real)
        return {"fd": distance, "precision": precision, "recall": recall}

    def diversity(self, images: Tensor, labels: Tensor | None) -> float:
        """Return the samples' diversity as a share of the held-out images'.

        Within classes where these have some; 1 is as diverse as the data.
        """
        labels = None if labels is None else labels.cpu()
        found = diversity(self._features(images) * self._scale, labels)
        return found / max(self._real_diversity, 1e-12)

    @torch.no_grad()
    def _features(self, images: Tensor) -> Tensor:
        parts = torch.split(images.cpu(), BATCH)
        return torch.cat([self._embed(part).flatten(1).float().cpu() for part in parts])
