"""The configurations of trainings. Imports no torch: the command line makes options from them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from ostinato.arguments import require, require_above, require_at_least, require_types
from ostinato.journal import RunConfig, beside
from ostinato.loop import Condition, Steps, check_seed, parse
from ostinato.train.schedule import Schedule


def option(default: Any, help: str) -> Any:
    """Make a dataclass field that the command line offers as an option with this help text."""
    return field(default=default, metadata={"help": help})


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """How to train: length, batches, optimizer, learning rate, averages, validation.

    A run may be given more steps, and show more or fewer samples: these fields are free.
    """

    free: ClassVar[frozenset[str]] = frozenset({"steps", "sample_every"})

    steps: int = option(
        1000, "Steps of the learning-rate schedule; also the limit if no other condition is given."
    )
    batch_tokens: int = option(4096, "Tokens per batch, padding included.")
    gradient_accumulation_steps: int = option(1, "Batches per optimizer step.")
    optimizer: Literal["adamw", "muon"] = option(
        "adamw", "AdamW for all weights, or Muon for matrices and AdamW for the rest."
    )
    adamw_lr_scale: float = option(0.15, "With Muon: AdamW's learning rate as a share of Muon's.")
    lr: float = option(1e-3, "Peak learning rate.")
    warmup_steps: int = option(20, "Steps of linear warm-up.")
    schedule: Literal["linear", "wsd", "constant"] = option(
        "linear",
        "Learning rate after the warm-up: linear decay, decay in the last fifth (WSD), constant.",
    )
    min_lr_ratio: float = option(0.02, "Final learning rate as a share of the peak.")
    weight_decay: float = option(0.0, "Decoupled weight decay of matrices.")
    max_grad_norm: float = option(1.0, "Gradient clipping: largest norm; 0: none.")
    ema_decay: float = option(0.0, "Decay of the averaged weights (EMA), e.g. 0.99; 0: none.")
    valid_every: int = option(100, "Steps between validations.")
    sample_every: int = option(0, "Steps between samples; 0: none.")
    precision: Literal["float32", "bfloat16"] = option(
        "float32",
        "Type of the matrix products in a step; weights keep theirs. bfloat16 is fast only on "
        "processors that support it.",
    )
    seed: int = option(0, "Seed of the data order, the initial weights and dropout.")

    def __post_init__(self) -> None:
        require_types(self)
        require_at_least(
            1,
            steps=self.steps,
            batch_tokens=self.batch_tokens,
            gradient_accumulation_steps=self.gradient_accumulation_steps,
            valid_every=self.valid_every,
        )
        require_at_least(
            0,
            warmup_steps=self.warmup_steps,
            weight_decay=self.weight_decay,
            max_grad_norm=self.max_grad_norm,
            sample_every=self.sample_every,
        )
        require_above(0, lr=self.lr, adamw_lr_scale=self.adamw_lr_scale)
        require(0 <= self.min_lr_ratio <= 1, "min_lr_ratio", "in [0, 1]", self.min_lr_ratio)
        require(0 <= self.ema_decay < 1, "ema_decay", "in [0, 1)", self.ema_decay)
        check_seed(self.seed)

    @property
    def lr_schedule(self) -> Schedule:
        """The learning rate of each step."""
        return Schedule(
            lr=self.lr,
            warmup_steps=self.warmup_steps,
            shape=self.schedule,
            steps=self.steps,
            min_lr_ratio=self.min_lr_ratio,
        )

    def lr_at(self, step: int) -> float:
        """Return the learning rate of a step, counted from 0."""
        return self.lr_schedule.at(step)


@dataclass(frozen=True, kw_only=True)
class TrainingRun(RunConfig):
    """A training: how it trains, when it ends, and the folder that its model is written to.

    `until` is a condition as it is spelled, such as `Epochs(3) | Plateau('loss/valid')`; None:
    after the steps of the schedule. `data` is a hash of the examples, which decides whether they
    are the same: where they lie may change.
    """

    writes: ClassVar[tuple[str, ...]] = ("out",)
    free: ClassVar[frozenset[str]] = frozenset({"out", "until", "checkpoint_every"})
    hashes: ClassVar[frozenset[str]] = frozenset({"data"})

    out: Path
    training: TrainingConfig = TrainingConfig()
    until: str | None = None
    checkpoint_every: int = 100
    data: str = ""

    def __post_init__(self) -> None:
        require_types(self)
        require_at_least(1, checkpoint_every=self.checkpoint_every)
        self.condition()

    def condition(self) -> Condition:
        """Return when the training ends."""
        return Steps(self.training.steps) if self.until is None else parse(self.until)

    def branched(self, name: str) -> Self:
        """Return the configuration of a branch: it writes to a folder beside this one."""
        return replace(self, out=beside(self.out, name))
