"""The configurations of trainings. Imports no torch: the command line makes options from them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from ostinato.arguments import require, require_above, require_at_least, require_types
from ostinato.journal import RunConfig, beside
from ostinato.loop import Condition, Steps, check_seed, parse
from ostinato.train.batch_sampler import BatchSampler
from ostinato.train.schedule import Schedule

BATCHES = 10  # of an epoch, at least, where the data allow it
WARMUP_PART = 10  # the warm-up takes at most this part of the steps
VALIDATIONS = 4  # of a training, at least


def option(default: Any, help: str, *, flag: str = "", metavar: str | None = None) -> Any:
    """Make a dataclass field that the command line offers as an option with this help text.

    `flag` is how the option is called, if not as the field: `--gray/--color`.
    """
    return field(default=default, metadata={"help": help, "flag": flag, "metavar": metavar})


def argument(metavar: str) -> Any:
    """Make a dataclass field that is an argument of the command: a tuple takes one or more."""
    return field(metadata={"argument": metavar})


@dataclass(frozen=True, kw_only=True)
class TrainerConfig:
    """How to train, as far as all trainings have it: for how long. A subclass adds the rest.

    `planned` are the fields that follow from the length of a training where they are not given.
    Those that `follows` names are as another one, if they were and are not given. `batch` is the
    field with the size of a batch, in the unit of the examples' lengths.
    """

    free: ClassVar[frozenset[str]] = frozenset({"steps"})
    planned: ClassVar[tuple[str, ...]] = ("steps",)
    follows: ClassVar[Mapping[str, str]] = {}
    batch: ClassVar[str] = ""

    steps: int = option(
        1000, "Steps of the learning-rate schedule; also the limit if no other condition is given."
    )

    def __post_init__(self) -> None:
        require_types(self)
        require_at_least(1, steps=self.steps)

    def fitted(self, lengths: Sequence[int]) -> Mapping[str, int]:
        """Return a size of batches of which an epoch has about ten, at most the usual one."""
        if not self.batch:
            return {}
        tenth = -(-sum(lengths) // BATCHES)
        return {self.batch: min(getattr(self, self.batch), max(*lengths, tenth))}

    def steps_per_epoch(self, lengths: Sequence[int]) -> float:
        """Return how many steps a pass over examples of these lengths takes."""
        return max(1, len(lengths))

    def scaled(self) -> Mapping[str, int]:
        """Return a warm-up and validations that suit the number of steps."""
        most = {
            "warmup_steps": max(1, self.steps // WARMUP_PART),
            "valid_every": max(1, self.steps // VALIDATIONS),
        }
        return {n: min(getattr(self, n), limit) for n, limit in most.items() if n in self.planned}

    def require_room(self, lengths: Sequence[int], fixed: Collection[str]) -> None:
        """Raise `InputError` for a `fixed` size of batches that has room for no example."""
        if self.batch in fixed:
            size, shortest = getattr(self, self.batch), min(lengths)
            require(
                size >= shortest,
                self.batch,
                f"at least {shortest}, the length of the shortest example",
                size,
                "Give more, or leave it out.",
            )

    def warning(self, last: int | None = None) -> str:
        """Say that the learning rate does not get to its peak; empty where it does.

        That follows from the plan, or from an end after the step `last`.
        """
        warmup, steps = getattr(self, "warmup_steps", 0), self.steps
        if last is None and warmup > steps:
            return (
                f"warmup_steps must be at most the {steps} steps of the plan for the learning rate "
                f"to get to its peak, got {warmup}. Give fewer --warmup-steps, or train longer."
            )
        # Of a plan that is shorter than its warm-up it was said at the start.
        if last is not None and 0 < last < warmup <= steps:
            return (
                f"All {last} steps were in the warm-up of {warmup}: the learning rate did not get "
                "to its peak. Train longer, or give fewer --warmup-steps."
            )
        return ""


@dataclass(frozen=True, kw_only=True)
class GradientConfig(TrainerConfig):
    """How to train networks by their gradients: learning rate, averages, validation, precision.

    A run may be given more steps, and show more or fewer samples: these fields are free.
    """

    free: ClassVar[frozenset[str]] = frozenset({"steps", "sample_every"})
    planned: ClassVar[tuple[str, ...]] = ("steps", "warmup_steps", "valid_every")
    follows: ClassVar[Mapping[str, str]] = {"sample_every": "valid_every"}

    lr: float = option(1e-3, "Peak learning rate.")
    warmup_steps: int = option(20, "Steps of linear warm-up.")
    schedule: Literal["linear", "wsd", "constant"] = option(
        "linear",
        "Learning rate after the warm-up: linear decay, decay in the last fifth (WSD), constant.",
    )
    min_lr_ratio: float = option(0.02, "Final learning rate as a share of the peak.")
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
        super().__post_init__()
        require_at_least(1, valid_every=self.valid_every)
        require_at_least(0, max_grad_norm=self.max_grad_norm, sample_every=self.sample_every)
        require(0 <= self.ema_decay < 1, "ema_decay", "in [0, 1)", self.ema_decay)
        check_seed(self.seed)
        self.lr_schedule()  # which checks its own fields

    def lr_schedule(self, peak: float | None = None) -> Schedule:
        """Return the learning rate of each step; `peak` is another peak than `lr`."""
        return Schedule(
            lr=self.lr if peak is None else peak,
            warmup_steps=self.warmup_steps,
            shape=self.schedule,
            steps=self.steps,
            min_lr_ratio=self.min_lr_ratio,
        )


@dataclass(frozen=True, kw_only=True)
class TrainingConfig(GradientConfig):
    """How a `Training` trains: batches of tokens, and the optimizer."""

    planned: ClassVar[tuple[str, ...]] = (*GradientConfig.planned, "batch_tokens")
    batch: ClassVar[str] = "batch_tokens"

    batch_tokens: int = option(4096, "Tokens per batch, padding included.")
    gradient_accumulation_steps: int = option(1, "Batches per optimizer step.")
    optimizer: Literal["adamw", "muon"] = option(
        "adamw", "AdamW for all weights, or Muon for matrices and AdamW for the rest."
    )
    adamw_lr_scale: float = option(0.15, "With Muon: AdamW's learning rate as a share of Muon's.")
    weight_decay: float = option(0.0, "Decoupled weight decay of matrices.")

    def __post_init__(self) -> None:
        super().__post_init__()
        require_at_least(
            1,
            batch_tokens=self.batch_tokens,
            gradient_accumulation_steps=self.gradient_accumulation_steps,
        )
        require_at_least(0, weight_decay=self.weight_decay)
        require_above(0, adamw_lr_scale=self.adamw_lr_scale)

    # The plan ---------------------------------------------------------------------------------

    def steps_per_epoch(self, lengths: Sequence[int]) -> float:
        """Return how many steps a pass over examples of these lengths takes."""
        batches = BatchSampler(lengths, self.batch_tokens, self.seed).batches
        return batches / self.gradient_accumulation_steps


@dataclass(frozen=True, kw_only=True)
class TrainingRun(RunConfig):
    """A training: how it trains, when it ends, and the folder that its model is written to.

    `until` is a condition as it is spelled, such as `Epochs(3) | Plateau('loss/valid')`; None:
    after the steps of the schedule. `data` is a hash of the examples, which decides whether they
    are the same: where they lie may change. `measure` is the report's value whose best weights are
    saved, the `better` of them being the least or the greatest. `prepare` is the `package:function`
    that reads what the configuration names, and returns the parts of the training.
    """

    writes: ClassVar[tuple[str, ...]] = ("out",)
    free: ClassVar[frozenset[str]] = frozenset({"out", "until", "checkpoint_every"})
    hashes: ClassVar[frozenset[str]] = frozenset({"data"})

    prepare: ClassVar[str] = ""
    measure: ClassVar[str] = "loss/valid"
    better: ClassVar[Literal["min", "max"]] = "min"

    out: Path
    training: TrainerConfig = TrainerConfig()
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

    def placed(self) -> Self:
        """Return the configuration for a record: what it reads by absolute paths."""
        return self

    def branched(self, name: str) -> Self:
        """Return the configuration of a branch: it writes to a folder beside this one."""
        return replace(self, out=beside(self.out, name))
