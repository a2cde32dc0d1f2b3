"""The configuration of a training. Needs no torch: the command line makes its options of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from ostinato.errors import InputError
from ostinato.loop import check_seed


def option(default: Any, help: str) -> Any:
    """Make a field that the command line offers as an option with this help text."""
    return field(default=default, metadata={"help": help})


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """How to train."""

    steps: int = option(
        1000, "Steps that the rate is planned for; the limit where nothing else ends it."
    )
    batch_tokens: int = option(4096, "Tokens of a batch, padding included.")
    accumulate: int = option(1, "Batches whose gradients are added up for a step.")
    optimiser: Literal["adamw", "muon"] = option("adamw", "Muon: for matrices, AdamW for the rest.")
    adam_share: float = option(
        0.15, "With Muon: the share of the rate that embeddings and vectors get from AdamW."
    )
    lr: float = option(1e-3, "The learning rate at its height.")
    warmup: int = option(20, "Steps in which the rate rises.")
    schedule: Literal["linear", "wsd", "constant"] = option(
        "linear", "After the warm-up: falling at once, in the last fifth, or never."
    )
    final: float = option(0.02, "The share of the rate that is left at the end.")
    weight_decay: float = option(0.0, "Decay of matrices, decoupled.")
    clip: float = option(1.0, "The greatest norm of the gradient; 0: not clipped.")
    ema: float = option(0.0, "Decay of the averaged weights, such as 0.99; 0: none.")
    valid_every: int = option(100, "Steps between validations.")
    sample_every: int = option(0, "Steps between samples; 0: none.")
    precision: Literal["float32", "bfloat16"] = option(
        "float32",
        "Of the products within a step; bfloat16 is faster where the processor multiplies it. The "
        "weights stay as they are.",
    )
    seed: int = option(0, "Seed of the order, the network and dropout.")

    def __post_init__(self) -> None:
        for name in ("steps", "batch_tokens", "accumulate", "valid_every"):
            self._require(getattr(self, name) >= 1, name, "at least 1")
        for name in ("warmup", "weight_decay", "clip", "sample_every"):
            self._require(getattr(self, name) >= 0, name, "0 or more")
        check_seed(self.seed)
        self._require(self.lr > 0, "lr", "above 0")
        self._require(self.adam_share > 0, "adam_share", "above 0")
        self._require(0 <= self.final <= 1, "final", "in [0, 1]")
        self._require(0 <= self.ema < 1, "ema", "in [0, 1)")
        self._require(self.optimiser in ("adamw", "muon"), "optimiser", "'adamw' or 'muon'")
        halves = self.precision in ("float32", "bfloat16")
        self._require(halves, "precision", "'float32' or 'bfloat16'")
        known = self.schedule in ("linear", "wsd", "constant")
        self._require(known, "schedule", "'linear', 'wsd' or 'constant'")

    def _require(self, right: bool, name: str, expected: str) -> None:
        if not right:
            raise InputError(f"{name} must be {expected}, got {getattr(self, name)!r}.")

    def rate(self, step: int) -> float:
        """Return the learning rate of a step, counted from 0."""
        if step < self.warmup:
            return self.lr * (step + 1) / self.warmup
        done = min(1.0, (step - self.warmup) / max(1, self.steps - self.warmup))
        if self.schedule == "constant":
            return self.lr
        fall = done if self.schedule == "linear" else max(0.0, done - 0.8) / 0.2
        return self.lr * (1 - (1 - self.final) * fall)
