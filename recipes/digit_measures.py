"""The quality of sampled digits: Fréchet distance, and the share of right classes.

The distance is that of Heusel et al. 2017 (equation 6), in the 32 features of a classifier that is
trained here. Each feature is scaled to a variance of 1 over real images. Knows no denoiser.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ostinato.image import Images, PerImageTask, frechet_distance
from ostinato.loop import Loop, Steps
from ostinato.train import Loss, Training, TrainingConfig

FEATURES = 32


class FeatureClassifier(nn.Module):
    """Two strided convolutions and two linear layers, for images of 28 x 28 pixels.

    It measures, so it differs from `ostinato.image.Classifier`, which checks samples: a sample that
    only fools the check's network is found here.
    """

    scale: Tensor

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.one = nn.Conv2d(1, 16, 3, stride=2, padding=1)
        self.two = nn.Conv2d(16, 32, 3, stride=2, padding=1)
        self.features = nn.Linear(32 * 7 * 7, FEATURES)
        self.out = nn.Linear(FEATURES, classes)
        self.register_buffer("scale", torch.ones(FEATURES))

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (B, classes) of images (B, 1, 28, 28)."""
        logits: Tensor = self.out(F.relu(self.embed(x)))
        return logits

    def embed(self, x: Tensor) -> Tensor:
        """Return features (B, 32), not scaled."""
        h = F.relu(self.two(F.relu(self.one(x))))
        features: Tensor = self.features(h.flatten(1))
        return features


class ClassificationTask(PerImageTask):
    """Classify images moved by up to two pixels: cross-entropy, summed over images."""

    def __init__(self, images: Images) -> None:
        assert images.labels is not None
        super().__init__(len(images))
        self._pixels, self._labels = images.clean(), images.labels

    def loss(self, network: nn.Module, chosen: Sequence[int], seed: int) -> Loss:
        """Return the summed cross-entropy of a batch, which is moved as a whole."""
        generator = torch.Generator().manual_seed(seed)
        x = self._pixels[list(chosen)]
        down, right = torch.randint(-2, 3, (2,), generator=generator).tolist()
        logits = network(x.roll((down, right), (2, 3)))
        total = F.cross_entropy(logits, self._labels[list(chosen)], reduction="sum")
        return Loss(total, {"images": len(chosen)})

    def validate(self, network: nn.Module, batch_tokens: int) -> Mapping[str, float]:
        """Return nothing: the caller measures after the training."""
        return {}


def train_classifier(images: Images, steps: int = 1500) -> FeatureClassifier:
    """Train a classifier on images with labels, in `steps` steps of 64 images."""
    torch.manual_seed(0)  # the same features in every evaluation, so that distances compare
    classifier = FeatureClassifier()
    config = TrainingConfig(steps=steps, batch_tokens=64, lr=2e-3)
    Loop(Training(classifier, ClassificationTask(images), config), until=Steps(steps)).run()
    classifier.eval()
    with torch.no_grad():
        classifier.scale = 1 / classifier.embed(images.clean()).std(0)
    return classifier


@torch.no_grad()
def class_right(classifier: FeatureClassifier, images: Tensor, labels: Tensor) -> float:
    """Return the share of images (N, 1, 28, 28) in [-1, 1] that are classified as their label."""
    return float((classifier(images).argmax(1) == labels).float().mean())


@torch.no_grad()
def scaled_features(classifier: FeatureClassifier, images: Tensor) -> Tensor:
    """Return features (N, 32) of images (N, 1, 28, 28), with a variance of 1 over real ones."""
    return classifier.embed(images) * classifier.scale


def frechet(classifier: FeatureClassifier, a: Tensor, b: Tensor) -> float:
    """Return the Fréchet distance of two sets of images; features count as normally distributed."""
    return frechet_distance(scaled_features(classifier, a), scaled_features(classifier, b))
