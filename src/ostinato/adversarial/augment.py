"""Augmentations of what a discriminator sees, for small data; gradients pass through them.

Zhao et al., "Differentiable Augmentation for Data-Efficient GAN Training" (2020), section 3.2 and
appendix: real and generated images are augmented alike, for both sides' updates, so that the
generator does not learn the augmentations. How often each is applied may adapt to how much the
discriminator overfits (`AdaptiveProbability`). Images are (B, C, H, W) in [-1, 1].
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ostinato.loop import fold_in

SHIFT = 1 / 8  # largest translation, as a share of the side
HOLE = 1 / 2  # side of the square that is cut out, as a share


SPEED = 1 / 32_000  # by how much the probability may change, for each real image that was seen


class AdaptiveProbability:
    """The probability `p` of augmentations, which rises while the discriminator overfits.

    Karras et al., "Training Generative Adversarial Networks with Limited Data" (2020), section 3.1:
    it starts at 0, and goes up where the overfitting is above `target`, down where it is below, at
    a fixed speed. A part of a training.
    """

    def __init__(self, target: float) -> None:
        self.target, self.p = target, 0.0

    def adapt(self, overfitting: float, images: int) -> None:
        """Move `p` after a look at the discriminator, `images` real images after the last one."""
        toward = SPEED * images if overfitting > self.target else -SPEED * images
        self.p = min(max(self.p + toward, 0.0), 1.0)

    def state_dict(self) -> dict[str, object]:
        """Return the probability."""
        return {"p": self.p}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore it."""
        self.p = state["p"]


def augmented(x: Tensor, names: Sequence[str], seed: int, p: float = 1.0) -> Tensor:
    """Return images that are each augmented by its own random numbers, a function of `seed`.

    `names` are of `color`, `translation` and `cutout`; the order of their effects is this one. `p`
    is the probability of each for each image.
    """
    draws = torch.Generator().manual_seed(seed)
    chances = torch.Generator().manual_seed(fold_in(seed, "chances"))
    for name, change in _CHANGES.items():
        if name not in names or not p:
            continue
        changed, chosen = change(x, draws), _uniform(x, chances) < p  # below 1, so that 1 is all
        x = torch.where(chosen, changed, x)
    return x


def _uniform(x: Tensor, draws: torch.Generator) -> Tensor:
    return torch.rand(len(x), 1, 1, 1, generator=draws).to(x)


def _color(x: Tensor, draws: torch.Generator) -> Tensor:
    """Change brightness by up to 0.5, saturation by 0 to 2, contrast by 0.5 to 1.5."""
    x = x + (_uniform(x, draws) - 0.5)
    gray = x.mean(1, keepdim=True)
    x = torch.lerp(gray, x, 2 * _uniform(x, draws))
    flat = x.mean((1, 2, 3), keepdim=True)
    return torch.lerp(flat, x, 0.5 + _uniform(x, draws))


def _translation(x: Tensor, draws: torch.Generator) -> Tensor:
    """Move by up to an eighth of the side; gray comes in, 0 here."""
    B, _, H, W = x.shape
    rows, down = _moved(B, H, draws, x.device)
    columns, right = _moved(B, W, draws, x.device)
    inside = down[:, None, :, None] & right[:, None, None, :]
    batch = torch.arange(B, device=x.device)[:, None, None]
    moved = x.permute(0, 2, 3, 1)[batch, rows[:, :, None], columns[:, None, :]]
    return moved.permute(0, 3, 1, 2).masked_fill(~inside, 0.0)


def _moved(
    B: int, side: int, draws: torch.Generator, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Return from which position each one (B, side) comes, and whether that was in the image."""
    most = int(side * SHIFT + 0.5)
    by = torch.randint(-most, most + 1, (B, 1), generator=draws)
    places = torch.arange(side) + by
    return places.clamp(0, side - 1).to(device), ((places >= 0) & (places < side)).to(device)


def _cutout(x: Tensor, draws: torch.Generator) -> Tensor:
    """Cut out a square of half the side, whose middle may lie anywhere: gray, 0 here."""
    B, _, H, W = x.shape
    holes = []
    for side in (H, W):
        width = int(side * HOLE + 0.5)
        first = torch.randint(0, side + 1 - width % 2, (B, 1), generator=draws) - width // 2
        places = torch.arange(side)
        holes.append(((places >= first) & (places < first + width)).to(x.device))
    hole = holes[0][:, None, :, None] & holes[1][:, None, None, :]
    return x.masked_fill(hole, 0.0)


_CHANGES = {"color": _color, "translation": _translation, "cutout": _cutout}
