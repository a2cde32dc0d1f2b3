"""Checks of images: classified as their class, sharp enough.

Outputs are (C, H, W) in [-1, 1]. Knows no network: a classifier is a function.
"""

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

ClassifierFn = Callable[[Tensor], Tensor]
"""Returns the logits (B, classes) of images (B, C, H, W)."""


@dataclass(frozen=True, kw_only=True)
class ClassifiedAs(BaseCheck):
    """Passes where a classifier gives the item's class a probability of at least `least`.

    The class is the item's `label`; without it, the most likely class counts. The classifier runs
    in a fixed shape, so the verdict does not depend on other images.
    """

    kind: ClassVar[str] = "recognized"

    classifier: ClassifierFn
    least: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.least <= 1:
            raise self.refuse("least", "a probability", self.least, "Take 0.5.")

    def judge(self, output: object, item: Item) -> Verdict:
        """Judge an image (C, H, W); the score is the probability of the class."""
        image = as_image(output, self.name)
        probs = fixed_batches(self.classifier, image[None])[0].softmax(-1)
        label = item.get("label")
        best = int(probs.argmax())
        target = label if isinstance(label, int) else best
        if not 0 <= target < len(probs):
            return self.error(
                f"label must be from 0 to {len(probs) - 1}, the classes of the classifier, got "
                f"{target}."
            )
        score = float(probs[target])
        # Without a label the target is the most likely class, and there is no other to name.
        other = "" if best == target else f", and class {best} {float(probs[best]):.1%}"
        message = (
            f"Make it look more like class {target}: the classifier gives it {score:.1%}, at least "
            f"{self.least:.1%} is required{other}."
        )
        return self.verdict(score >= self.least, message, score)


@dataclass(frozen=True, kw_only=True)
class Sharpness(BaseCheck):
    """Passes where edges are steep enough.

    The 99th percentile of the differences of neighboring pixels, as a share of the whole range,
    must be at least `least`. The maximum instead would let one bright pixel pass a blurred image.
    """

    kind: ClassVar[str] = "sharp"

    least: float = 0.2

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.least <= 1:
            raise self.refuse("least", "in [0, 1]", self.least, "Take 0.2.")

    def judge(self, output: object, item: Item) -> Verdict:
        """Judge an image (C, H, W); the score is the steepness over `least`, at most 1."""
        image = as_image(output, self.name)
        across = (image[:, :, 1:] - image[:, :, :-1]).abs().flatten()
        down = (image[:, 1:] - image[:, :-1]).abs().flatten()
        steepest = float(torch.cat((across, down)).quantile(0.99)) / 2  # the range of [-1, 1] is 2
        message = (
            f"Make it sharper: its steepest edges span {steepest:.1%} of the range, at least "
            f"{self.least:.1%} is required."
        )
        score = min(1.0, steepest / self.least) if self.least else 1.0
        return self.verdict(steepest >= self.least, message, score)


def as_image(output: object, name: str) -> Tensor:
    """Return the output of a check `name` as an image. Raises `InputError` for anything else."""
    if isinstance(output, Tensor) and output.dim() == 3:
        return output
    raise InputError(
        f"The output given to the check '{name}' must be an image (C, H, W), got "
        f"{type(output).__name__}."
    )
