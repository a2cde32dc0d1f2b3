"""The learning rate of each step. Imports no torch: configurations hold it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ostinato.arguments import require, require_above, require_at_least, require_types


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """A learning rate that rises to its peak `lr` in `warmup_steps`, and then follows its shape.

    "constant" stays there; "linear" falls over the `steps` to `min_lr_ratio` of the peak; "wsd"
    (warm-up, stable, decay: Hu et al. 2024, "MiniCPM") does so in the last fifth.
    """

    lr: float
    warmup_steps: int = 0
    shape: Literal["linear", "wsd", "constant"] = "constant"
    steps: int = 1
    min_lr_ratio: float = 0.0

    def __post_init__(self) -> None:
        require_types(self)
        require_above(0, lr=self.lr)
        require_at_least(0, warmup_steps=self.warmup_steps)
        require_at_least(1, steps=self.steps)
        require(0 <= self.min_lr_ratio <= 1, "min_lr_ratio", "in [0, 1]", self.min_lr_ratio)

    def at(self, step: int) -> float:
        """Return the learning rate of a step, counted from 0."""
        if step < self.warmup_steps:
            return self.lr * (step + 1) / self.warmup_steps
        if self.shape == "constant":
            return self.lr
        progress = min(1.0, (step - self.warmup_steps) / max(1, self.steps - self.warmup_steps))
        fall = progress if self.shape == "linear" else max(0.0, progress - 0.8) / 0.2
        return self.lr * (1 - (1 - self.min_lr_ratio) * fall)
