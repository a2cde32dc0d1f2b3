"""The configuration of a training. Needs no torch: the command line makes its options of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, get_args, get_type_hints

from ostinato.errors import InputError
from ostinato.loop import check_seed

AT_LEAST_1 = ("steps", "batch_tokens", "gradient_accumulation_steps", "valid_every")
AT_LEAST_0 = ("warmup_steps", "weight_decay", "max_grad_norm", "sample_every")
ABOVE_0 = ("lr", "adamw_lr_scale")


def option(default: Any, help: str) -> Any:
    """Make a dataclass field that the command line offers as an option with this help text."""
    return field(default=default, metadata={"help": help})


def require(right: bool, name: str, expected: str, value: object) -> None:
    """Raise `InputError` that names a setting, what it must be, and its value."""
    if not right:
        raise InputError(f"{name} must be {expected}, got {value!r}.")


def require_choices(config: object) -> None:
    """Raise `InputError` where a field of type `Literal` has another value than its choices."""
    for name, hint in get_type_hints(type(config)).items():
        choices = get_args(hint)
        if choices and all(isinstance(choice, str) for choice in choices):
            value = getattr(config, name)
            told = " or ".join(map(repr, choices))
            require(value in choices, name, told, value)


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """How to train."""

    steps: int = option(
        1000, "Steps that the learning rate is planned for; the limit if nothing else ends it."
    )
    batch_tokens: int = option(4096, "Tokens of a batch, padding included.")
    gradient_accumulation_steps: int = option(1, "Batches whose gradients are added up for a step.")
    optimizer: Literal["adamw", "muon"] = option(
        "adamw", "AdamW for all weights, or Muon for matrices and AdamW for the rest."
    )
    adamw_lr_scale: float = option(0.15, "With Muon: AdamW's learning rate as a share of Muon's.")
    lr: float = option(1e-3, "Peak learning rate.")
    warmup_steps: int = option(20, "Steps of linear warm-up.")
    schedule: Literal["linear", "wsd", "constant"] = option(
        "linear",
        "Learning rate after the warm-up: linear decay, decay in the last fifth (WSD), or constant.",
    )
    min_lr_ratio: float = option(0.02, "Final learning rate as a share of the peak.")
    weight_decay: float = option(0.0, "Decoupled weight decay of matrices.")
    max_grad_norm: float = option(1.0, "Gradient clipping: the largest norm; 0: none.")
    ema_decay: float = option(0.0, "Decay of the averaged weights (EMA), such as 0.99; 0: none.")
    valid_every: int = option(100, "Steps between validations.")
    sample_every: int = option(0, "Steps between samples; 0: none.")
    precision: Literal["float32", "bfloat16"] = option(
        "float32",
        "Type of the products in a step. Weights keep their type; bfloat16 needs a processor that "
        "multiplies it fast.",
    )
    seed: int = option(0, "Seed of the data order, the initial weights and dropout.")

    def __post_init__(self) -> None:
        for name in AT_LEAST_1:
            require(getattr(self, name) >= 1, name, "at least 1", getattr(self, name))
        for name in AT_LEAST_0:
            require(getattr(self, name) >= 0, name, "0 or more", getattr(self, name))
        for name in ABOVE_0:
            require(getattr(self, name) > 0, name, "above 0", getattr(self, name))
        require(0 <= self.min_lr_ratio <= 1, "min_lr_ratio", "in [0, 1]", self.min_lr_ratio)
        require(0 <= self.ema_decay < 1, "ema_decay", "in [0, 1)", self.ema_decay)
        require_choices(self)
        check_seed(self.seed)

    def rate(self, step: int) -> float:
        """Return the learning rate of a step, counted from 0."""
        if step < self.warmup_steps:
            return self.lr * (step + 1) / self.warmup_steps
        done = min(1.0, (step - self.warmup_steps) / max(1, self.steps - self.warmup_steps))
        if self.schedule == "constant":
            return self.lr
        fall = done if self.schedule == "linear" else max(0.0, done - 0.8) / 0.2
        return self.lr * (1 - (1 - self.min_lr_ratio) * fall)
