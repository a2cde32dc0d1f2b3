"""Training: one optimizer step per step, over batches whose order is a function of (seed, step).

A process. It does not know when to stop: `Epochs`, `Plateau("loss/valid")`, `NotFinite` and other
conditions do. After a loss diverged, `go_back(lr_scale=0.5)` returns to the last checkpoint with
half the learning rate. `go_back(skip=1)` instead skips the batches of the step that diverged.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import count as count_from
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn

from ostinato.arguments import did_you_mean
from ostinato.errors import EditError, InputError
from ostinato.journal import EditKind
from ostinato.loop import Edits, Report, SparseMetrics, fold_in
from ostinato.models import deterministic_ops, device_of, has_computed_weights
from ostinato.train.batch_sampler import BatchSampler
from ostinato.train.config import TrainingConfig
from ostinato.train.optimizers import AdamW, Muon, Optimizer
from ostinato.train.task import Loss, Task

EDITS: Mapping[str, EditKind] = {
    "lr": "number",
    "lr_scale": "number",
    "skip": "number",
    "skip_steps": "list",
}


class Training(SparseMetrics):
    """Train the parameters of a network that require a gradient, on a task.

    Reports:

    - `loss/train` (the mean of the step's batches), `lr`, `grad/norm`;
    - `epoch` (passes over the examples, after the step), `batch` (the index of the next one);
    - the task's sizes and parts (`tokens`);
    - `loss/valid` every `valid_every` steps, `sample` every `sample_every` steps.

    Edits: `lr` sets the peak, `lr_scale` multiplies the rate. `skip` is the number of next batches
    to skip, `skip_steps` are pairs of a position and a number of steps to skip. `best` holds the
    weights of the best `loss/valid`, of `best_step`. A training may end between two validations:
    `validate_last` makes up for it.
    """

    known_edits = EDITS

    def __init__(
        self, network: nn.Module, task: Task, config: TrainingConfig | None = None
    ) -> None:
        if has_computed_weights(network):
            raise InputError(
                "network must have its matrices in memory as floats, got some that stay in a file. "
                "Load it with dtype=torch.float32, or load the model's Hugging Face folder."
            )
        self.network, self.task, self.config = network, task, config or TrainingConfig()
        self._sampler = BatchSampler(task.lengths, self.config.batch_tokens, self.config.seed)
        self.parameters = {n: p for n, p in network.named_parameters() if p.requires_grad}
        self.device = device_of(network)
        self._optimizer = self._make_optimizer()
        self._step = 0
        self._skipped = 0  # batches before the next one that no step has seen
        self._left_out: set[int] = set()  # indices of batches ahead that no step will see
        self._lr_scale = 1.0
        self._lr: float | None = None
        self.best: dict[str, Tensor] = {}
        self.best_loss = math.inf
        self.best_step: int | None = None
        self._validated = -1  # the step whose weights were validated last
        self._ema_weights = self._copy_weights() if self.config.ema_decay else {}

    @property
    def batches(self) -> int:
        """The number of batches of an epoch."""
        return self._sampler.batches

    @property
    def report_interval(self) -> int:
        """Steps within which a validation must have been reported, going back once included."""
        return 2 * max(self.config.valid_every, self.config.sample_every)

    # The process ------------------------------------------------------------------------------

    def step(self) -> Report:
        """Take one optimizer step."""
        with deterministic_ops(self.device):
            return self._advance()

    def _advance(self) -> Report:
        config, accumulate = self.config, self.config.gradient_accumulation_steps
        if self._uses_dropout():
            # torch's dropout draws from the global generator: seeded here, a step depends on its
            # number alone, not on what ran before it.
            torch.manual_seed(fold_in(config.seed, "dropout", self._step))
        self.network.train()
        batch_indices = list(islice(self._coming_batches(), accumulate))
        loss, metrics = self._backward(batch_indices)
        grad_norm = self._clip_gradients()
        lr = self._current_lr()
        self._optimizer.step(self.parameters, lr, self._step + 1)
        for p in self.parameters.values():
            p.grad = None
        # The next batch follows from two counts, steps taken and batches skipped.
        self._skipped += batch_indices[-1] + 1 - self._batch_index() - accumulate
        self._step += 1
        self._left_out = {index for index in self._left_out if index >= self._batch_index()}
        self._update_ema()
        report: dict[str, object] = {"loss/train": loss, "lr": lr, "grad/norm": grad_norm}
        report["epoch"] = self._batch_index() / self.batches
        report["batch"] = self._batch_index()
        return report | metrics | self._scheduled_metrics()

    def state_dict(self) -> dict[str, object]:
        """Return weights, optimizer state, averages, best weights, and the next batch."""
        return {
            "step": self._step,
            "skipped": self._skipped,
            "left_out": sorted(self._left_out),
            "lr": self._lr,
            "lr_scale": self._lr_scale,
            "weights": {name: p.detach() for name, p in self.parameters.items()},
            "optimizer": {name: dict(value) for name, value in self._optimizer.state.items()},
            "ema": dict(self._ema_weights),
            "best": dict(self.best),
            "best_loss": self.best_loss,
            "best_step": self.best_step,
            "validated": self._validated,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Load a saved state. Raises `InputError` if it belongs to another network."""
        self.load_weights(state["weights"])
        self._step, self._skipped = state["step"], state["skipped"]
        self._left_out = set(state.get("left_out", ()))  # states of older versions have none
        self._lr, self._lr_scale = state["lr"], state["lr_scale"]
        self._optimizer.state.clear()
        for name, moments in state["optimizer"].items():
            self._optimizer.state[name] = self._own(moments)
        self._ema_weights, self.best = self._own(state["ema"]), self._own(state["best"])
        self.best_loss = state["best_loss"]
        # States of older versions have neither.
        self.best_step, self._validated = state.get("best_step"), state.get("validated", -1)

    def change(self, edits: Edits) -> None:
        """Apply `lr`, `lr_scale`, `skip` or `skip_steps`."""
        for name, value in edits.items():
            if name not in EDITS:
                raise EditError(
                    f"Unknown edit {name!r} of Training. Known: {', '.join(EDITS)}."
                    f"{did_you_mean(name, EDITS)}"
                )
            if name == "skip_steps":
                self._skip_steps(value)
                continue
            if isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
                raise EditError(f"{name} must be a number of 0 or more, got {value!r}.")
            if name == "lr":
                self._lr = float(value)
            elif name == "lr_scale":
                self._lr_scale *= value
            else:
                self._skipped += int(value)

    @torch.no_grad()
    def load_weights(self, weights: Mapping[str, Tensor]) -> None:
        """Copy weights (such as `best`) into the network. Raises `InputError` for other names."""
        if set(weights) != set(self.parameters):
            odd = sorted(set(weights) ^ set(self.parameters))[:3]
            raise InputError(
                f"The saved weights must be of this network, got others: they differ in {odd}. "
                "Load them into the network that they were saved from."
            )
        for name, p in self.parameters.items():
            p.copy_(weights[name])

    @property
    def averages(self) -> bool:
        """Whether validations and samples use averaged weights (`ema_decay`)."""
        return bool(self._ema_weights)

    def validate_last(self) -> Mapping[str, float]:
        """Validate the weights of the last step, unless they are validated; return the losses.

        Empty without held-out examples. For the end of a training: what a resumed run computes
        does not depend on it.
        """
        if self._validated == self._step:
            return {}
        with deterministic_ops(self.device), self._weights(self._ema_weights):
            return self._validate_and_keep()

    @contextmanager
    def best_weights(self) -> Iterator[None]:
        """Use the best weights in the block: of the best validation, else averaged, else last."""
        with self._weights(self.best or self._ema_weights or self._copy_weights()):
            yield

    # Parts of a step --------------------------------------------------------------------------

    def _make_optimizer(self) -> Optimizer:
        config = self.config
        if config.optimizer == "adamw":
            return AdamW(weight_decay=config.weight_decay)
        return Muon(
            weight_decay=config.weight_decay,
            adamw_lr_scale=config.adamw_lr_scale,
            dtype=getattr(torch, config.precision),
        )

    def _batch_index(self) -> int:
        """The index of the next batch, counted over all epochs."""
        return self._step * self.config.gradient_accumulation_steps + self._skipped

    def _coming_batches(self) -> Iterator[int]:
        """Yield the indices of the batches to come, without those left out."""
        return (i for i in count_from(self._batch_index()) if i not in self._left_out)

    def _skip_steps(self, pairs: object) -> None:
        """Leave out the batches of coming steps, each pair being [position, number of steps]."""
        accumulate = self.config.gradient_accumulation_steps
        for pair in pairs if isinstance(pairs, list | tuple) else [pairs]:
            match pair:
                case [int(position), int(number)] if position > self._step and number > 0:
                    # Batches are left out by index, not counted off at once: the steps before
                    # `position` are taken again first and must see the batches they saw.
                    first = (position - 1 - self._step) * accumulate
                    last = first + number * accumulate
                    self._left_out |= set(islice(self._coming_batches(), first, last))
                case _:
                    raise EditError(
                        f"skip_steps must be pairs [position, number] of steps after "
                        f"{self._step}, got {pair!r}."
                    )

    def _backward(self, batch_indices: Sequence[int]) -> tuple[float, dict[str, object]]:
        """Accumulate the gradients of the batches' mean loss; return it, and the metrics."""
        batches = [self._sampler.batch(index)[1] for index in batch_indices]
        # The mean is over all counted tokens of the step, so that the result does not depend on
        # how they are divided into batches.
        loss_tokens = max(1, sum(self.task.loss_tokens(batch) for batch in batches))
        total, losses = 0.0, []
        for index, batch in zip(batch_indices, batches, strict=True):
            seed = fold_in(self.config.seed, "loss", index)
            with self._autocast():
                loss = self.task.loss(self.network, batch, seed)
            share = loss.total / loss_tokens
            share.backward()  # type: ignore[no-untyped-call]
            total += float(share.detach())
            losses.append(loss)
        return total, _combined(losses)

    def _autocast(self) -> torch.autocast:
        """Return a context for products in the configured precision.

        Each batch needs its own: the context caches the rounded weights, with their graph.
        """
        enabled = self.config.precision == "bfloat16"
        return torch.autocast(self.device.type, torch.bfloat16, enabled=enabled)

    def _current_lr(self) -> float:
        lr = self.config.lr_at(self._step)
        if self._lr is not None:
            lr *= self._lr / self.config.lr
        return lr * self._lr_scale

    def _clip_gradients(self) -> float:
        """Scale the gradients to at most `max_grad_norm`; return their norm before."""
        grads = [p.grad for p in self.parameters.values() if p.grad is not None]
        grad_norm = float(torch.linalg.vector_norm(torch.stack([g.norm() for g in grads])))
        # A NaN norm compares false: nothing is scaled, and `NotFinite` sees it in the report.
        if self.config.max_grad_norm and grad_norm > self.config.max_grad_norm:
            for grad in grads:
                grad.mul_(self.config.max_grad_norm / grad_norm)
        return grad_norm

    @torch.no_grad()
    def _update_ema(self) -> None:
        # A smaller decay at first: the average would otherwise keep the random initial weights.
        decay = min(self.config.ema_decay, (self._step + 1) / (self._step + 10))
        for name, value in self._ema_weights.items():
            value.lerp_(self.parameters[name], 1 - decay)

    def _copy_weights(self) -> dict[str, Tensor]:
        return {name: p.detach().clone() for name, p in self.parameters.items()}

    def _own(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Copy tensors to the device: those of a checkpoint are read on the CPU and shared."""
        return {name: value.to(self.device).clone() for name, value in tensors.items()}

    @contextmanager
    def _weights(self, weights: Mapping[str, Tensor]) -> Iterator[None]:
        """Put weights into the network, and the current ones back; empty changes nothing."""
        if not weights:
            yield
            return
        current = self._copy_weights()
        self.load_weights(weights)
        try:
            yield
        finally:
            self.load_weights(current)

    def _uses_dropout(self) -> bool:
        return any(getattr(module, "dropout", 0.0) for module in self.network.modules())

    # Validation and samples -------------------------------------------------------------------

    def _scheduled_metrics(self) -> dict[str, object]:
        """Return the losses and the sample scheduled for this step, with the averaged weights."""
        sample_every = self.config.sample_every
        validates = self._step % self.config.valid_every == 0
        samples = sample_every > 0 and self._step % sample_every == 0
        metrics: dict[str, object] = {}
        if not validates and not samples:
            return metrics
        with self._weights(self._ema_weights):
            if validates:
                metrics.update(self._validate_and_keep())
            if samples:
                self.network.eval()
                sample = self.task.sample(self.network)
                metrics |= {} if sample is None else {"sample": sample}
        return metrics

    def _validate_and_keep(self) -> Mapping[str, float]:
        """Validate the weights that the network has, and keep them if they are the best so far."""
        losses = self.validate()
        self._validated = self._step
        if losses.get("loss/valid", math.inf) < self.best_loss:
            self.best_loss, self.best = losses["loss/valid"], self._copy_weights()
            self.best_step = self._step
        return losses

    @torch.no_grad()
    def validate(self) -> Mapping[str, float]:
        """Return the task's losses of its held-out examples, with the network's current weights."""
        self.network.eval()
        return self.task.validate(self.network, self.config.batch_tokens)


def _combined(losses: Sequence[Loss]) -> dict[str, object]:
    """Return the sums of the losses' sizes, and the means of their parts."""
    sizes: dict[str, int] = {}
    parts: dict[str, tuple[float, float]] = {}
    for loss in losses:
        for name, size in loss.sizes.items():
            sizes[name] = sizes.get(name, 0) + size
        for name, (total, count) in loss.parts.items():
            total_before, count_before = parts.get(name, (0.0, 0.0))
            parts[name] = (total_before + total, count_before + count)
    return sizes | {name: total / count for name, (total, count) in parts.items() if count}
