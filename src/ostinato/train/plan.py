"""The plan of a training: what of its configuration follows from its length and its data."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Protocol

from ostinato.errors import InputError
from ostinato.train.batch_sampler import BatchSampler
from ostinato.train.config import TrainingConfig

PLANNED = ("steps", "batch_tokens", "warmup_steps", "valid_every")
"""The settings that follow from the length of a training where they are not given."""
BATCHES = 10  # of an epoch, at least, where the data allow it
WARMUP_PART = 10  # the warm-up takes at most this part of the steps
VALIDATIONS = 4  # of a training, at least


class Plannable(Protocol):
    """What a training is planned by, and kept to: its data."""

    @property
    def hashes(self) -> Mapping[str, str]:
        """By field of the run's configuration: the hash of what the training reads."""
        ...

    @property
    def lengths(self) -> Sequence[int]:
        """The length of each example to train on, as `Task.lengths`."""
        ...

    def steps_per_second(self, config: TrainingConfig) -> float:
        """Measure how fast a copy of the network trains."""
        ...


def planned(
    config: TrainingConfig,
    data: Plannable,
    *,
    epochs: float | None = None,
    seconds: float | None = None,
    fixed: Collection[str] = (),
) -> TrainingConfig:
    """Return a configuration with what follows from the length of a training.

    What is not `fixed` is scaled to few data: with `epochs` a batch to a tenth of them, the warm-up
    to a tenth of the steps. `seconds` are planned by the measured speed.
    """
    if epochs is not None:
        config = _replaced(config, {"batch_tokens": _batch_for(config, data.lengths)}, fixed)
    steps = config.steps
    if epochs is not None:
        batches = BatchSampler(data.lengths, config.batch_tokens, config.seed).batches
        steps = max(1, round(epochs * batches / config.gradient_accumulation_steps))
    elif seconds is not None and "steps" not in fixed:
        steps = max(1, int(seconds * data.steps_per_second(config)))
    config = _replaced(config, {"steps": steps}, fixed)
    scaled = {
        "warmup_steps": min(config.warmup_steps, max(1, config.steps // WARMUP_PART)),
        "valid_every": min(config.valid_every, max(1, config.steps // VALIDATIONS)),
    }
    return _replaced(config, scaled, fixed)


def with_plan_of(
    recorded: TrainingConfig, config: TrainingConfig, *, fixed: Collection[str] = ()
) -> TrainingConfig:
    """Return a configuration with the plan of a run that resumes, where nothing else is `fixed`.

    It keeps its plan however long it is to be now: the rates of the steps that it has taken would
    otherwise not lie on the schedule.
    """
    return _replaced(config, {name: getattr(recorded, name) for name in PLANNED}, fixed)


def require_room(batch_tokens: int, lengths: Sequence[int]) -> None:
    """Raise `InputError` for a batch that has room for no example."""
    shortest = min(lengths)
    if batch_tokens < shortest:
        raise InputError(
            f"batch_tokens must be at least {shortest}, the length of the shortest example, got "
            f"{batch_tokens}. Give more, or leave it out."
        )


def _replaced(
    config: TrainingConfig, values: Mapping[str, int], fixed: Collection[str]
) -> TrainingConfig:
    """Return a configuration with these values where they are not fixed."""
    free = {name: value for name, value in values.items() if name not in fixed}
    if "sample_every" not in fixed and config.sample_every == config.valid_every:
        free["sample_every"] = free.get("valid_every", config.valid_every)
    return replace(config, **free)  # type: ignore[arg-type]


def _batch_for(config: TrainingConfig, lengths: Sequence[int]) -> int:
    """Return the size of a batch of which an epoch has about `BATCHES`, at most the usual one."""
    return min(config.batch_tokens, max(*lengths, -(-sum(lengths) // BATCHES)))
