"""The plan of a training: what of its configuration follows from its length and its data."""

from __future__ import annotations

import importlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol, TypeVar

from ostinato.errors import InputError
from ostinato.train.config import TrainerConfig, TrainingRun

Config = TypeVar("Config", bound=TrainerConfig)


class Plannable(Protocol):
    """What a training is planned by, and kept to: its data."""

    @property
    def hashes(self) -> Mapping[str, str]:
        """By field of the run's configuration: the hash of what the training reads."""
        ...

    @property
    def lengths(self) -> Sequence[int]:
        """The length of each example to train on, as `Task.lengths`; empty without examples."""
        ...

    def steps_per_second(self, config: Any) -> float:
        """Measure how fast a copy of the network trains."""
        ...


def prepare(config: TrainingRun) -> Plannable:
    """Read what the configuration of a training names. Raises `InputError` for bad input."""
    module, _, name = config.prepare.partition(":")
    prepared: Plannable = getattr(importlib.import_module(module), name)(config)
    return prepared


def planned(
    config: Config,
    data: Plannable,
    *,
    epochs: float | None = None,
    seconds: float | None = None,
    fixed: Collection[str] = (),
) -> Config:
    """Return a configuration with what follows from the length of a training.

    What is not `fixed` is scaled to few data: with `epochs` a batch to a tenth of them, the warm-up
    to a tenth of the steps. `seconds` are planned by the measured speed.
    """
    steps = config.steps
    if epochs is not None:
        if not data.lengths:
            raise InputError(
                f"--epochs must be left out of a training without examples, got {epochs:g}. Give "
                "--steps or --seconds."
            )
        config = _replaced(config, config.fitted(data.lengths), fixed)
        steps = max(1, round(epochs * config.steps_per_epoch(data.lengths)))
    elif seconds is not None and "steps" not in fixed:
        steps = max(1, int(seconds * data.steps_per_second(config)))
    config = _replaced(config, {"steps": steps}, fixed)
    return _replaced(config, config.scaled(), fixed)


def with_plan_of(recorded: TrainerConfig, config: Config, *, fixed: Collection[str] = ()) -> Config:
    """Return a configuration with the plan of a run that resumes, where nothing else is `fixed`.

    It keeps its plan however long it is to be now: the rates of the steps that it has taken would
    otherwise not lie on the schedule.
    """
    return _replaced(config, {name: getattr(recorded, name) for name in config.planned}, fixed)


def _replaced(config: Config, values: Mapping[str, int], fixed: Collection[str]) -> Config:
    """Return a configuration with these values where they are not fixed."""
    free = {name: value for name, value in values.items() if name not in fixed}
    for name, other in config.follows.items():
        if name not in fixed and getattr(config, name) == getattr(config, other):
            free[name] = free.get(other, getattr(config, other))
    return replace(config, **free)
