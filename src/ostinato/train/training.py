"""Training: one optimizer step per step, over batches whose order is a function of (seed, step).

A process. It does not know when to stop: `Epochs`, `Plateau("loss/valid")`, `NotFinite` and other
conditions do. After a loss diverged, `go_back(lr_scale=0.5)` returns to the last checkpoint with
half the learning rate. `go_back(skip=1)` instead skips the batches of the step that diverged.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from ostinato.errors import InputError
from ostinato.loop import Report, fold_in
from ostinato.models import has_computed_weights
from ostinato.train.batch_cursor import Batch, BatchCursor
from ostinato.train.batch_sampler import BatchSampler
from ostinato.train.config import TrainingConfig
from ostinato.train.older_state import as_parts
from ostinato.train.optimizers import optimizer_of
from ostinato.train.parts import Part, Parts, PartsProcess
from ostinato.train.precision import Precision
from ostinato.train.task import Task, combined
from ostinato.train.updater import Updater
from ostinato.train.weights import (
    Averages,
    BestWeights,
    CurrentWeights,
    Validation,
    Weights,
    load_weights,
    trainable,
    using,
)


class Training(PartsProcess):
    """Train the parameters of a network that require a gradient, on a task.

    Reports:

    - `loss/train` (the mean of the step's batches), `lr`, `grad/norm`;
    - `epoch` (passes over the examples, after the step), `batch` (the index of the next one);
    - the task's sizes and parts (`tokens`);
    - `loss/valid` every `valid_every` steps, `sample` every `sample_every` steps.

    Edits: `lr` sets the peak, `lr_scale` multiplies the rate. `skip` is the number of next batches
    to skip, `skip_steps` are pairs of a position and a number of steps to skip. A task that is a
    `Part` is saved and edited with the training. `best` has the weights of the best `loss/valid`. A
    training may end between two validations: `validate_last` makes up for it.
    """

    def __init__(
        self, network: nn.Module, task: Task, config: TrainingConfig | None = None
    ) -> None:
        if has_computed_weights(network):
            raise InputError(
                "network must have its matrices in memory as floats, got some that stay in a file. "
                "Load it with dtype=torch.float32, or load the model's Hugging Face folder."
            )
        self.network, self.task = network, task
        self.config = config = config or TrainingConfig()
        self.parameters = trainable(network)
        self.precision = Precision(network, name=config.precision, seed=config.seed)
        self.updater = Updater(
            self.parameters,
            optimizer_of(config),
            config.lr_schedule(),
            max_grad_norm=config.max_grad_norm,
        )
        self.cursor = BatchCursor(
            BatchSampler(task.lengths, config.batch_tokens, config.seed),
            config.gradient_accumulation_steps,
        )
        self._averages = Averages(self.parameters, config.ema_decay)
        self.best = BestWeights(self.parameters)
        self._validation = Validation(self.best, self.validate, every=config.valid_every)
        self._parts = Parts(
            "Training",
            weights=CurrentWeights(self.parameters),
            updater=self.updater,
            averages=self._averages,
            best=self.best,
            validation=self._validation,
            cursor=self.cursor,
            **({"task": task} if isinstance(task, Part) else {}),
        )

    @property
    def batches(self) -> int:
        """The number of batches of an epoch."""
        return self.cursor.sampler.batches

    @property
    def report_interval(self) -> int:
        """Steps within which a validation must have been reported, going back once included."""
        return 2 * max(self.config.valid_every, self.config.sample_every)

    @property
    def averages(self) -> bool:
        """Whether validations and samples use averaged weights (`ema_decay`)."""
        return bool(self._averages.weights)

    # The process ------------------------------------------------------------------------------

    def step(self) -> Report:
        """Take one optimizer step."""
        with self.precision.step_of(self.updater.steps):
            batches = self.cursor.take()
            loss, metrics = self._backward(batches)
            report: dict[str, object] = {"loss/train": loss, **self.updater.step()}
            self._averages.update()
            report |= {"epoch": self.cursor.epoch, "batch": self.cursor.index}
            return report | metrics | self._scheduled(self.updater.steps)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Load a saved state. Raises `InputError` if it belongs to another network."""
        self._parts.load_state_dict(as_parts(state, self.cursor.per_step))

    # Parts of a step --------------------------------------------------------------------------

    def _backward(self, batches: Sequence[Batch]) -> tuple[float, dict[str, object]]:
        """Accumulate the gradients of the batches' mean loss; return it, and the metrics."""
        # The mean is over all counted tokens of the step, so that the result does not depend on
        # how they are divided into batches.
        loss_tokens = max(1, sum(self.task.loss_tokens(batch.examples) for batch in batches))
        total, losses = 0.0, []
        for batch in batches:
            seed = fold_in(self.config.seed, "loss", batch.index)
            with self.precision.autocast():
                loss = self.task.loss(self.network, batch.examples, seed)
            share = loss.total / loss_tokens
            share.backward()  # type: ignore[no-untyped-call]
            total += float(share.detach())
            losses.append(loss)
        return total, combined(losses)

    def _scheduled(self, step: int) -> dict[str, object]:
        """Return the losses and the sample scheduled for this step, with the averaged weights."""
        every = self.config.sample_every
        validates, samples = self._validation.is_due(step), every > 0 and step % every == 0
        metrics: dict[str, object] = {}
        if validates or samples:
            with using(self.parameters, self._averages.weights):
                metrics |= self._validation.run(step) if validates else {}
                metrics |= self._sample() if samples else {}
        return metrics

    def _sample(self) -> dict[str, object]:
        self.network.eval()
        sample = self.task.sample(self.network)
        return {} if sample is None else {"sample": sample}

    # Weights ----------------------------------------------------------------------------------

    @torch.no_grad()
    def validate(self) -> Mapping[str, float]:
        """Return the task's losses of its held-out examples, with the network's current weights."""
        self.network.eval()
        return self.task.validate(self.network, self.config.batch_tokens)

    def validate_last(self) -> Mapping[str, float]:
        """Validate the weights of the last step, unless they are validated; return the losses.

        Empty without held-out examples. For the end of a training: what a resumed run computes
        does not depend on it.
        """
        step = self.updater.steps
        if self._validation.last == step:
            return {}
        with self.precision.deterministic(), using(self.parameters, self._averages.weights):
            return self._validation.run(step)

    @contextmanager
    def best_weights(self) -> Iterator[None]:
        """Use the best weights in the block: of the best validation, else averaged, else last."""
        with using(self.parameters, self.best.weights or self._averages.weights):
            yield

    def load_weights(self, weights: Weights) -> None:
        """Copy weights (such as `best.weights`) into the network.

        Raises `InputError` for other names.
        """
        load_weights(self.parameters, weights)
