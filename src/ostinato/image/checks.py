"""Checks of images: recognized by a classifier, sharp enough. Outputs are (C, H, W) in [-1, 1]."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ostinato.checks import BaseCheck
from ostinato.errors import InputError
from ostinato.image.fixed_batches import fixed_batches
from ostinato.loop import Item, Verdict

Classifier = Callable[[Tensor], Tensor]
"""Gives the logits (B, classes) of images (B, C, H, W)."""


@dataclass(frozen=True, kw_only=True)
class ClassifiedAs(BaseCheck):
    """Passes where a classifier gives the picture's class at least the probability `least`.

    The class is the item's `label`; without one, any class will do. The classifier runs over a
    fixed number of images, so that the verdict does not depend on the company.
    """

    kind: ClassVar[str] = "recognized"

    classifier: Classifier
    least: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.least <= 1:
            raise self.refuse("least", "a probability", self.least, "Take 0.5.")

    def judge(self, output: object, item: Item) -> Verdict:
        """Judge an image."""
        image = as_image(output, self.name)
        probs = fixed_batches(self.classifier, image[None])[0].softmax(-1)
        label = item.get("label")
        wanted = int(probs.argmax()) if not isinstance(label, int) else label
        if not 0 <= wanted < len(probs):
            return self.error(f"label is {wanted}, but the classifier knows {len(probs)} classes.")
        score, likeliest = float(probs[wanted]), int(probs.argmax())
        message = (
            f"Make it look more like class {wanted}: the classifier gives it {score:.1%}, at least "
            f"{self.least:.1%} is wanted, and class {likeliest} {float(probs[likeliest]):.1%}."
        )
        return self.verdict(score >= self.least, message, score)


@dataclass(frozen=True, kw_only=True)
class Sharpness(BaseCheck):
    """Passes where edges are steep enough: the 99th percentile of the differences of neighboring
    pixels, as a share of the whole range, is at least `least`."""

    kind: ClassVar[str] = "sharp"

    least: float = 0.2

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.least <= 1:
            raise self.refuse("least", "in [0, 1]", self.least, "Take 0.2.")

    def judge(self, output: object, item: Item) -> Verdict:
        """Judge an image."""
        image = as_image(output, self.name)
        across = (image[:, :, 1:] - image[:, :, :-1]).abs().flatten()
        down = (image[:, 1:] - image[:, :-1]).abs().flatten()
        steepest = float(torch.cat((across, down)).quantile(0.99)) / 2
        message = (
            f"Make it sharper: its steepest edges span {steepest:.1%} of the range, at least "
            f"{self.least:.1%} is wanted."
        )
        score = min(1.0, steepest / self.least) if self.least else 1.0
        return self.verdict(steepest >= self.least, message, score)


def as_image(output: object, name: str) -> Tensor:
    """Return an output as an image. Raises `InputError` where it is none."""
    if isinstance(output, Tensor) and output.dim() == 3:
        return output
    raise InputError(
        f"The output given to the check '{name}' must be an image (C, H, W), got "
        f"{type(output).__name__}."
    )
