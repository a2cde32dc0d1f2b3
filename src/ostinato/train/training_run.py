"""A training as a run: its loop, and the weights that it saves at its end. Knows no family."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import nn

from ostinato.arguments import counted, require
from ostinato.errors import RunError
from ostinato.journal import Run, RunSource, StopKind, differences, require_same
from ostinato.loop import CheckpointSchedule, Condition, Loop, NotFinite, OnStop, Work, accept
from ostinato.train.batch_sampler import BatchSampler
from ostinato.train.config import TrainerConfig, TrainingConfig, TrainingRun
from ostinato.train.plan import prepare
from ostinato.train.recovery import go_back
from ostinato.train.task import Task
from ostinato.train.trainer import Trainer
from ostinato.train.training import Training

MEASURED = 5
"""Steps that the speed of a training is measured on."""


@dataclass(kw_only=True)
class TrainingParts:
    """What a training is made of, which may be any `Trainer`.

    `process` makes it, of the settings of the run (`TrainingRun.training`). `save` writes what it
    trained, with the weights that it has then, to a folder. `hashes` are those of what was read, by
    field of the run's configuration; `lengths` those of the examples to train on, if it passes over
    examples. `size` says what it trains on, with some settings, in words; `notes` are sentences
    about the data for the user. `failure` is when a training went wrong, and `on_stop` what is done
    about it.
    """

    process: Callable[[Any], Trainer]
    save: Callable[[Any, Path], object]
    hashes: Mapping[str, str] = field(default_factory=dict)
    lengths: Sequence[int] = ()
    size: Callable[[Any], str] = lambda config: ""
    notes: tuple[str, ...] = ()
    failure: Condition = NotFinite()
    on_stop: OnStop = accept

    def steps_per_second(self, config: TrainerConfig) -> float:
        """Measure how fast it trains; the weights are then what they were."""
        process = self.process(config)
        before = copy.deepcopy(process.state_dict())
        process.step()  # the first one allocates and warms up
        began = time.perf_counter()
        for _ in range(MEASURED):
            process.step()
        speed = MEASURED / (time.perf_counter() - began)
        process.load_state_dict(before)
        return speed


def task_parts(
    network: nn.Module,
    task: Task,
    *,
    save: Callable[[Path], object],
    hashes: Mapping[str, str],
    examples: tuple[int, int],
    notes: tuple[str, ...] = (),
    failure: Condition | None = None,
    on_stop: OnStop | None = None,
) -> TrainingParts:
    """Return the parts of a `Training` of a network on a task.

    `examples` counts those to train on and to validate with. By default a loss that is not finite
    goes back to the last checkpoint at half the learning rate, three times.
    """

    def size(config: TrainingConfig) -> str:
        batches = BatchSampler(task.lengths, config.batch_tokens, config.seed).batches
        train, valid = examples
        return (
            f"{counted(train, 'examples')} to train on, {valid} to validate with, "
            f"{counted(batches, 'batches')} per epoch"
        )

    def save_evaluated(process: Training, folder: Path) -> None:
        network.eval()
        save(folder)

    return TrainingParts(
        process=lambda config: Training(network, task, config),
        save=save_evaluated,
        hashes=hashes,
        lengths=task.lengths,
        size=size,
        notes=notes,
        failure=failure or NotFinite(),
        on_stop=on_stop or go_back(lr_scale=0.5),
    )


@dataclass(kw_only=True)
class TrainingWork(Work):
    """A training that is ready to be driven; `last` validates the last weights."""

    config: TrainingRun
    parts: TrainingParts
    process: Trainer
    last: Mapping[str, float] = field(default_factory=dict)

    @property
    def diverged(self) -> bool:
        """Whether it ended with weights that are not worth a validation."""
        stopped = self.loop.stopped
        return stopped is not None and stopped.kind in (StopKind.DIVERGED, StopKind.ERROR)

    def write(self) -> None:
        """Save the best weights, of a training that is paused, too.

        Weights between two validations may be the best, so the last ones are validated. Raises
        `RunError` where there are none that are finite: a model on the disk is never broken.
        """
        self.last = self.last or ({} if self.diverged else self.process.validate_last())
        broken = self.diverged or not math.isfinite(self.last.get(self.config.measure, 0.0))
        if broken and not self.process.best:
            what = "loss of the validation is no number"
            reason = "no validation took place" if self.diverged else f"the {what}"
            raise RunError(f"Nothing is saved in {self.config.out}: {reason}.")
        with self.process.best_weights():
            self.parts.save(self.process, self.config.out)


def build_training(
    config: TrainingRun, *, run: RunSource | None = None, prepared: TrainingParts | None = None
) -> TrainingWork:
    """Build the loop of a training, of what is `prepared` already or is prepared now.

    Raises `InputError` where the data are not those that the run started with.
    """
    parts: Any = prepared or prepare(config)
    require_same_data(config, parts.hashes, run)
    is_file = config.out.exists() and not config.out.is_dir()
    require(not is_file, "out", "a folder", f"the file {config.out}", "Name another.")
    process = parts.process(config.training)
    if process.best.mode != config.better:
        raise TypeError(
            f"{type(config).__name__}.better must be {process.best.mode!r}, as its trainer chooses "
            f"the best weights, got {config.better!r}."
        )
    loop = Loop(
        process,
        until=config.condition() | parts.failure,
        on_stop=parts.on_stop,
        run=run,
        checkpoint=CheckpointSchedule(steps=config.checkpoint_every),
    )
    return TrainingWork(loop=loop, config=config, parts=parts, process=process)


def require_same_data(
    config: TrainingRun, hashes: Mapping[str, str], run: RunSource | None
) -> None:
    """Raise `InputError` where what was read has other hashes than the configuration records."""
    fields: dict[str, Any] = dict(hashes)
    require_same(
        run.name if isinstance(run, Run) else config.out.name,
        differences(config, replace(config, **fields), Path()),
        "Put the files back as they were, or start another run.",
        lambda name: HASHED.get(name, name),
    )


HASHED = {
    "data": "the hash of the data",
    "weights": "the hash of the model to start from",
    "codec_weights": "the hash of the autoencoder",
}
"""How a message calls a field that is the hash of what is read."""
