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

from ostinato.arguments import require
from ostinato.errors import RunError
from ostinato.journal import Run, RunSource, StopKind, differences, require_same
from ostinato.loop import CheckpointSchedule, Loop, NotFinite, Work
from ostinato.train.config import TrainingConfig, TrainingRun
from ostinato.train.recovery import go_back
from ostinato.train.task import Task
from ostinato.train.training import Training

MEASURED = 5
"""Steps that the speed of a training is measured on."""


@dataclass(kw_only=True)
class TrainingParts:
    """What a training is made of.

    `save` writes the network, with the weights that it has then, to a folder. `hashes` are those of
    what was read, by field of the configuration. `examples` counts those to train on and to
    validate with; `notes` are sentences about the data for the user.
    """

    network: nn.Module
    task: Task
    save: Callable[[Path], object]
    hashes: Mapping[str, str]
    examples: tuple[int, int]
    notes: tuple[str, ...] = ()

    @property
    def lengths(self) -> Sequence[int]:
        """The length of each example to train on."""
        return self.task.lengths

    def steps_per_second(self, config: TrainingConfig) -> float:
        """Measure how fast a copy of the network trains."""
        process = Training(copy.deepcopy(self.network), self.task, config)
        process.step()  # the first one allocates and warms up
        began = time.perf_counter()
        for _ in range(MEASURED):
            process.step()
        return MEASURED / (time.perf_counter() - began)


@dataclass(kw_only=True)
class TrainingWork(Work):
    """A training that is ready to be driven; `last` holds the losses of the last weights."""

    config: TrainingRun
    parts: TrainingParts
    process: Training
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
        broken = self.diverged or not math.isfinite(self.last.get("loss/valid", 0.0))
        if broken and not self.process.best:
            what = "loss of the validation is no number"
            reason = "no validation took place" if self.diverged else f"the {what}"
            raise RunError(f"Nothing is saved in {self.config.out}: {reason}.")
        self.process.network.eval()
        with self.process.best_weights():
            self.parts.save(self.config.out)


def build_training(
    config: TrainingRun, parts: TrainingParts, run: RunSource | None = None
) -> TrainingWork:
    """Build the loop of a training.

    A loss that is not finite goes back to the last checkpoint at half the learning rate, three
    times. Raises `InputError` where the data are not those that the run started with.
    """
    require_same_data(config, parts.hashes, run)
    is_file = config.out.exists() and not config.out.is_dir()
    require(not is_file, "out", "a folder", f"the file {config.out}", "Name another.")
    process = Training(parts.network, parts.task, config.training)
    loop = Loop(
        process,
        until=config.condition() | NotFinite(),
        on_stop=go_back(lr_scale=0.5),
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
