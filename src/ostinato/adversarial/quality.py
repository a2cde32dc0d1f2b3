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

Classify = Callable[[Tensor], Tensor]
"""Logits (B, K) of such images."""

FEATURES, WIDTH = 64, 32  # of an untrained network; its channels at the finest level
BATCH = 250  # images whose features are computed at once
NEAR = 1 / 3  # of the usual distance to the nearest real image: nearer ones are the same image
CLEARLY = 3.0  # standard errors of two mean scores
ENOUGH = 8  # samples of a class that is looked at alone
MADE = 0.1  # of its share of the held-out images: a class with fewer samples is not made


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

    Each feature is scaled to a variance of 1 over the held-out images. With `classify`, a
    classifier of images, the samples' classes are looked at, too.
    """

    def __init__(self, embed: Embed, held_out: Images, *, classify: Classify | None = None) -> None:
        self._embed, self._classify, self.labels = embed, classify, held_out.labels
        features = self._features(held_out.clean())
        # A feature that never varies says nothing, and would be divided by zero.
        spread = features.std(0)
        self._scale = torch.where(spread > 1e-6, 1 / spread.clamp(min=1e-6), 0.0)
        self._real = features * self._scale
        self._real_diversity = diversity(self._real, self.labels)
        self._near = _usual_nearest(held_out) * NEAR
        self._share = None if classify is None else self._shares(held_out.clean())

    def measure(self, images: Tensor, labels: Tensor | None = None) -> Mapping[str, float]:
        """Return `fd`, `precision` and `recall` of samples (N, C, H, W).

        With a classifier also, for samples of classes (N,), `class_accuracy`, the share that is
        recognized as its class (the GAN-test of Shmelkov et al., "How good is my GAN?", 2018); for
        others `classes`, how many classes have at least a tenth of their share of the held-out
        images.
        """
        features = self._features(images) * self._scale
        precision, recall = precision_recall(self._real, features)
        distance = frechet_distance(features, self._real)
        found = {"fd": distance, "precision": precision, "recall": recall}
        if self._share is None:
            return found
        if labels is not None:
            right = self._classes(images) == labels.cpu()
            return found | {"class_accuracy": float(right.float().mean())}
        made = (self._shares(images) >= MADE * self._share) & (self._share > 0)
        return found | {"classes": int(made.sum())}

    def diversity(self, images: Tensor, labels: Tensor | None) -> float:
        """Return the samples' diversity as a share of the held-out images'.

        Within classes where these have some; 1 is as diverse as the data.
        """
        labels = None if labels is None else labels.cpu()
        found = diversity(self._features(images) * self._scale, labels)
        return found / max(self._real_diversity, 1e-12)

    def duplicates(self, images: Tensor, labels: Tensor | None) -> float:
        """Return the share of samples that have a near duplicate of the same class among them.

        That of the class with the most, where there are enough of each. Arora and Zhang, "Do GANs
        learn the distribution?" (2018), section 3: duplicates in a small sample betray a small
        support. A near one has less than a third of the distance, in pixels, that a held-out image
        of the class usually has to its nearest neighbor.
        """
        kind = torch.zeros(len(images), dtype=torch.long) if labels is None else labels.cpu()
        doubled = (_nearest(images.cpu(), kind) < self._near[kind]).float()
        counts = torch.bincount(kind)
        shares = torch.bincount(kind, doubled)[counts >= ENOUGH] / counts[counts >= ENOUGH]
        return max([float(doubled.mean()), *map(float, shares)])

    def _features(self, images: Tensor) -> Tensor:
        return _in_batches(self._embed, images)

    def _classes(self, images: Tensor) -> Tensor:
        assert self._classify is not None
        return _in_batches(self._classify, images).argmax(1)

    def _shares(self, images: Tensor) -> Tensor:
        """Return the share of the images that is recognized as each class."""
        assert self._classify is not None
        logits = _in_batches(self._classify, images)
        return torch.bincount(logits.argmax(1), minlength=logits.size(1)) / len(images)


@torch.no_grad()
def _in_batches(network: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    parts = torch.split(images.cpu(), BATCH)
    return torch.cat([network(part).flatten(1).float().cpu() for part in parts])


def overfitting(train: Tensor, held_out: Tensor, generated: Tensor) -> float | None:
    """Return how far a discriminator knows its images by heart, by three sets of scores.

    Karras et al., "Training Generative Adversarial Networks with Limited Data" (2020), equation 1:
    0 where held-out images score as those trained with, 1 where they score as generated ones. None
    where these do not score clearly lower: the quotient would be that of two noises.
    """
    apart = float(train.mean() - generated.mean())
    noise = train.var() / len(train) + generated.var() / len(generated)
    if apart <= CLEARLY * float(noise) ** 0.5:
        return None
    return float(train.mean() - held_out.mean()) / apart


def _nearest(images: Tensor, kind: Tensor) -> Tensor:
    """Return the distance in pixels (N,) to the nearest other image of the same kind."""
    pixels = images.float().flatten(1)
    apart = torch.cdist(pixels, pixels).fill_diagonal_(torch.inf)
    return apart.masked_fill(kind[:, None] != kind, torch.inf).min(1).values


def _usual_nearest(images: Images) -> Tensor:
    """Return the median distance of an image to the nearest of its class, for each class.

    0 for a class without two images: nothing is near there.
    """
    kind = torch.zeros(len(images), dtype=torch.long) if images.labels is None else images.labels
    nearest = _nearest(images.clean(), kind)
    classes = max(len(images.names), int(kind.max()) + 1)
    usual = torch.zeros(classes)
    for each in torch.unique(kind):
        median = nearest[kind == each].median()
        usual[each] = median if median.isfinite() else 0.0
    return usual
