"""What the benchmarks of digits share: the split, the judge of samples, training for a time."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor

from benchmarks.denoise_overhead import seconds as seconds_of
from ostinato.image import Images, hold_out, precision_recall
from ostinato.loop import Condition, Loop, Process, Seconds, Steps
from recipes.digit_measures import (
    FeatureClassifier,
    class_right,
    frechet,
    scaled_features,
    train_classifier,
)
from recipes.digits import HELD_OUT, read_digits

P = TypeVar("P", bound=Process)
MADE = 0.1  # of a class's due share of the samples: a class with fewer is not made


@dataclass(frozen=True)
class Bench:
    """Judges `count` samples, whose classes take turns, against held-out images."""

    classifier: FeatureClassifier
    held: Images
    count: int

    @property
    def labels(self) -> Tensor:
        """The classes to sample."""
        return torch.arange(self.count) % 10

    def distance(self, images: Tensor) -> float:
        """Return the Fréchet distance to the held-out images."""
        return frechet(self.classifier, images, self.held.clean())

    def samples(self, images: Tensor, distance: str, right: str) -> dict[str, float]:
        """Return both figures of samples, under these names."""
        return {
            distance: self.distance(images),
            right: class_right(self.classifier, images, self.labels),
        }

    @torch.no_grad()
    def classes(self, images: Tensor) -> int:
        """Return how many classes have at least a tenth of their due share of images."""
        logits = self.classifier(images)
        found = torch.bincount(logits.argmax(1), minlength=logits.size(1))
        return int((found >= MADE * len(images) / len(found)).sum())

    def precision_recall(self, images: Tensor) -> dict[str, float]:
        """Return precision and recall after Kynkäänniemi et al. 2019."""
        real, made = (
            scaled_features(self.classifier, each) for each in (self.held.clean(), images)
        )
        return precision_recall(real, made)._asdict()

    def real(self, others: Tensor) -> dict[str, float]:
        """Return the figures of other real images, and of these with noise of 10% of the range."""
        assert self.held.labels is not None
        noisy = (others + 0.2 * torch.randn(others.shape)).clamp(-1, 1)
        return {
            "floor_fd": self.distance(others),
            "noise_fd": self.distance(noisy),
            "floor_right": class_right(self.classifier, self.held.clean(), self.held.labels),
        }


def prepared(data: Path, count: int | None = None) -> tuple[Images, Bench, dict[str, float]]:
    """Return the images to train on, the judge of `count` samples, and its figures of real ones.

    By default as many samples are judged as images are held out.
    """
    seen, held = hold_out(read_digits(data), HELD_OUT)
    bench = Bench(train_classifier(seen), held, len(held) if count is None else count)
    return seen, bench, bench.real(hold_out(seen, len(held) / len(seen), seed=1)[1].clean())


def trained_for(
    make: Callable[[int], P], seconds: float, steps: int | None = None
) -> tuple[P, int]:
    """Run make(steps) for some steps, or for seconds, which include a measurement of its speed.

    Returns the process and the steps it made.
    """
    start = time.perf_counter()
    if steps is None:
        trial = make(1)
        trial.step()
        one = seconds_of(lambda: [trial.step() for _ in range(10)]) / 10
        left = max(one, seconds - (time.perf_counter() - start))
        process = make(max(1, int(left / one)))
        until: Condition = Seconds(left)
    else:
        process, until = make(steps), Steps(steps)
    loop = Loop(process, until=until)
    loop.run()
    return process, loop.tick


def show(figures: Mapping[str, float]) -> None:
    """Print figures, one per line."""
    for name, value in figures.items():
        print(f"{name:24} {value:10.3f}", flush=True)
