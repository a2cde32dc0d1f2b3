"""Training: one optimizer step a step, over mini-batches whose order is a function of (seed, step).

A process. It does not know when to stop: `Epochs`, `Plateau("loss/valid")`, `NotFinite` and the
rest do. After a loss that diverged, `go_back(lr_scale=0.5)` returns to the last checkpoint with
half the learning rate; `go_back(skip=1)` leaves out the batches of the step that diverged.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import count as count_from
from itertools import islice
from typing import Any, cast

import torch
from torch import Tensor, nn

from ostinato.errors import EditError, InputError
from ostinato.loop import Edits, Report, SparseMetrics, fold_in
from ostinato.models import deterministic_ops, device_of
from ostinato.train.batch_sampler import BatchSampler
from ostinato.train.config import TrainingConfig
from ostinato.train.optimizers import AdamW, Muon, Optimizer
from ostinato.train.task import Loss, Task

EDITS = ("lr", "lr_scale", "skip", "skip_steps")


class Training(SparseMetrics):
    """Train the parameters of a network that want a gradient, on a task.

    Reports: `loss/train` (the mean of the step's batches), `lr`, `grad/norm`, `epoch` (times
    through the examples, after the step), `batch`, the task's sizes and parts (`tokens`); when due
    `loss/valid` and `sample`. The weights of the best `loss/valid` are in `best`. Edits: `lr`
    (sets the height), `lr_scale` (multiplies it), `skip` (how many of the next batches to leave
    out), `skip_steps` (pairs of a position and a number of steps whose batches are left out).
    """

    def __init__(
        self, network: nn.Module, task: Task, config: TrainingConfig | None = None
    ) -> None:
        self.network, self.task, self.config = network, task, config or TrainingConfig()
        self._order = BatchSampler(task.lengths, self.config.batch_tokens, self.config.seed)
        self.parameters = {n: p for n, p in network.named_parameters() if p.requires_grad}
        self.device = device_of(network)
        self._optimizer = self._make_optimizer()
        self._step = self._skipped = 0
        self._left_out: set[int] = set()  # places in the order that are still to come
        self._lr_scale = 1.0
        self._lr: float | None = None
        self.best: dict[str, Tensor] = {}
        self.best_loss = math.inf
        self._ema = self._copy() if self.config.ema_decay else {}

    @property
    def batches(self) -> int:
        """The number of batches of an epoch."""
        return self._order.batches

    @property
    def report_interval(self) -> int:
        """The steps after which a validation was due, one going back included."""
        return 2 * max(self.config.valid_every, self.config.sample_every)

    # The process ------------------------------------------------------------------------------

    def step(self) -> Report:
        """Take one optimizer step."""
        with deterministic_ops(self.device):
            return self._advance()

    def _advance(self) -> Report:
        config, accumulate = self.config, self.config.gradient_accumulation_steps
        if self._uses_dropout():
            torch.manual_seed(fold_in(config.seed, "dropout", self._step))
        self.network.train()
        places = list(islice(self._places(), accumulate))
        loss, told = self._backward(places)
        norm = self._clip()
        rate = self._rate()
        self._optimizer.step(self.parameters, rate, self._step + 1)
        for p in self.parameters.values():
            p.grad = None
        self._skipped += places[-1] + 1 - self._place() - accumulate  # those left out between
        self._step += 1
        self._left_out = {place for place in self._left_out if place >= self._place()}
        self._average()
        report: dict[str, object] = {"loss/train": loss, "lr": rate, "grad/norm": norm}
        report["epoch"] = self._place() / self._order.batches
        report["batch"] = self._place()
        return report | told | self._due()

    def state_dict(self) -> dict[str, object]:
        """Return weights, optimizer state, averages, best weights, and the place in the data."""
        return {
            "step": self._step,
            "skipped": self._skipped,
            "left_out": sorted(self._left_out),
            "lr": self._lr,
            "lr_scale": self._lr_scale,
            "weights": {name: p.detach() for name, p in self.parameters.items()},
            "optimizer": {name: dict(value) for name, value in self._optimizer.state.items()},
            "ema": dict(self._ema),
            "best": dict(self.best),
            "best_loss": self.best_loss,
        }

    def load_state_dict(self, state: dict[str, object]) -> None:
        """Go to a saved state. Raises `InputError` where it is of another network."""
        saved = cast(dict[str, Any], state)
        self._load_weights(saved["weights"])
        self._step, self._skipped = saved["step"], saved["skipped"]
        self._left_out = set(saved.get("left_out", ()))
        self._lr, self._lr_scale = saved["lr"], saved["lr_scale"]
        moments = saved["optimizer"]
        self._optimizer.state.clear()
        self._optimizer.state.update({name: self._own(value) for name, value in moments.items()})
        self._ema, self.best = self._own(saved["ema"]), self._own(saved["best"])
        self.best_loss = saved["best_loss"]

    def change(self, edits: Edits) -> None:
        """Apply `lr`, `lr_scale`, `skip` or `skip_steps`."""
        for name, value in edits.items():
            if name not in EDITS:
                raise EditError(f"Unknown edit {name!r} of Training. Known: {', '.join(EDITS)}.")
            if name == "skip_steps":
                self._leave_out(value)
                continue
            if isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
                raise EditError(f"{name} must be a number of 0 or more, got {value!r}.")
            if name == "lr":
                self._lr = float(value)
            elif name == "lr_scale":
                self._lr_scale *= value
            else:
                self._skipped += int(value)

    def use(self, weights: dict[str, Tensor]) -> None:
        """Put weights (such as `best`) into the network."""
        self._load_weights(weights)

    @contextmanager
    def best_weights(self) -> Iterator[None]:
        """Put in the best weights for a while: of the best validation, else averaged, else last."""
        last = self._copy()
        if self.best or self._ema:
            self.use(self.best or self._ema)
        try:
            yield
        finally:
            self.use(last)

    # Parts of a step --------------------------------------------------------------------------

    def _make_optimizer(self) -> Optimizer:
        decay = self.config.weight_decay
        return (
            Muon(
                weight_decay=decay,
                adam_share=self.config.adamw_lr_scale,
                dtype=getattr(torch, self.config.precision),
            )
            if self.config.optimizer == "muon"
            else AdamW(weight_decay=decay)
        )

    def _place(self) -> int:
        return self._step * self.config.gradient_accumulation_steps + self._skipped

    def _places(self) -> Iterator[int]:
        """Yield the places in the order of the batches that come."""
        return (place for place in count_from(self._place()) if place not in self._left_out)

    def _leave_out(self, pairs: object) -> None:
        """Leave out the batches that steps to come would see, given as [position, number] each."""
        for pair in pairs if isinstance(pairs, list | tuple) else [pairs]:
            match pair:
                case [int(position), int(number)] if position > self._step and number > 0:
                    first = (position - 1 - self._step) * self.config.gradient_accumulation_steps
                    last = first + number * self.config.gradient_accumulation_steps
                    self._left_out |= set(islice(self._places(), first, last))
                case _:
                    raise EditError(
                        f"skip_steps must be pairs [position, number] of steps after "
                        f"{self._step}, got {pair!r}."
                    )

    def _backward(self, places: Sequence[int]) -> tuple[float, dict[str, object]]:
        """Leave the gradients of the batches' mean loss; return it, and what else is told."""
        batches = [self._order.batch(place)[1] for place in places]
        counted = max(1, sum(self.task.loss_tokens(chosen) for chosen in batches))
        total, losses = 0.0, []
        for place, chosen in zip(places, batches, strict=True):
            seed = fold_in(self.config.seed, "loss", place)
            with self._autocast():
                loss = self.task.loss(self.network, chosen, seed)
            part = loss.total / counted
            part.backward()  # type: ignore[no-untyped-call]
            total += float(part.detach())
            losses.append(loss)
        return total, _added(losses)

    def _autocast(self) -> torch.autocast:
        """Return a context for products in the config's precision; it keeps rounded weights, so
        each batch needs its own."""
        half = self.config.precision == "bfloat16"
        return torch.autocast(self.device.type, torch.bfloat16, enabled=half)

    def _rate(self) -> float:
        rate = self.config.rate(self._step)
        if self._lr is not None:
            rate *= self._lr / self.config.lr
        return rate * self._lr_scale

    def _clip(self) -> float:
        grads = [p.grad for p in self.parameters.values() if p.grad is not None]
        norm = float(torch.linalg.vector_norm(torch.stack([g.norm() for g in grads])))
        if self.config.max_grad_norm and norm > self.config.max_grad_norm:
            for grad in grads:
                grad.mul_(self.config.max_grad_norm / norm)
        return norm

    @torch.no_grad()
    def _average(self) -> None:
        """Average the weights; the decay is smaller in the first steps, which are far from good."""
        decay = min(self.config.ema_decay, (self._step + 1) / (self._step + 10))
        for name, value in self._ema.items():
            value.lerp_(self.parameters[name], 1 - decay)

    def _copy(self) -> dict[str, Tensor]:
        return {name: p.detach().clone() for name, p in self.parameters.items()}

    def _own(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {name: value.to(self.device).clone() for name, value in tensors.items()}

    @torch.no_grad()
    def _load_weights(self, weights: dict[str, Tensor]) -> None:
        if set(weights) != set(self.parameters):
            odd = sorted(set(weights) ^ set(self.parameters))[:3]
            raise InputError(f"The saved weights must be of this network; it differs in {odd}.")
        for name, p in self.parameters.items():
            p.copy_(weights[name])

    def _uses_dropout(self) -> bool:
        return any(getattr(module, "dropout", 0.0) for module in self.network.modules())

    # Validation and samples -------------------------------------------------------------------

    def _due(self) -> dict[str, object]:
        due: dict[str, object] = {}
        valid = self._step % self.config.valid_every == 0
        every = self.config.sample_every
        sample = every > 0 and self._step % every == 0
        if not valid and not sample:
            return due
        live = self._copy() if self._ema else {}
        if self._ema:
            self._load_weights(self._ema)
        if valid:
            due.update(self.validate())
            loss = cast(float, due.get("loss/valid", math.inf))
            if loss < self.best_loss:
                self.best_loss, self.best = loss, self._copy()
        if sample:
            self.network.eval()
            made = self.task.sample(self.network)
            due |= {} if made is None else {"sample": made}
        if live:
            self._load_weights(live)
        return due

    @torch.no_grad()
    def validate(self) -> Mapping[str, float]:
        """Return the task's losses of its held-out examples, with the weights as they stand."""
        self.network.eval()
        return self.task.validate(self.network, self.config.batch_tokens)


def _added(losses: Sequence[Loss]) -> dict[str, object]:
    """Return the sizes of some losses added up, and the means of their parts."""
    sizes: dict[str, int] = {}
    parts: dict[str, tuple[float, float]] = {}
    for loss in losses:
        for name, size in loss.sizes.items():
            sizes[name] = sizes.get(name, 0) + size
        for name, (total, count) in loss.parts.items():
            before = parts.get(name, (0.0, 0.0))
            parts[name] = (before[0] + total, before[1] + count)
    return sizes | {name: total / count for name, (total, count) in parts.items() if count}
