"""Weights by the names of the parameters: loaded, swapped, averaged, and the best ones kept.

Knows no network: a part of a training is given the parameters that it is about.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ostinato.arguments import require, require_at_least
from ostinato.errors import InputError

Weights = Mapping[str, Tensor]
"""Tensors by the names of the parameters that have their shapes."""


def trainable(network: nn.Module) -> dict[str, Tensor]:
    """Return the parameters of a network that require a gradient, by name."""
    return {name: p for name, p in network.named_parameters() if p.requires_grad}


def copied(parameters: Weights) -> dict[str, Tensor]:
    """Return copies of weights."""
    return {name: p.detach().clone() for name, p in parameters.items()}


@torch.no_grad()
def load_weights(parameters: Weights, weights: Weights) -> None:
    """Copy weights into parameters. Raises `InputError` for other names or shapes."""
    _require_fitting(parameters, weights)
    for name, p in parameters.items():
        p.copy_(weights[name])


def on_device_of(parameters: Weights, weights: Weights) -> dict[str, Tensor]:
    """Copy weights to where the parameters are: those of a checkpoint are shared, on the CPU.

    Raises `InputError` for other names or shapes; there may be no weights at all.
    """
    if weights:
        _require_fitting(parameters, weights)
    return {name: value.to(parameters[name].device).clone() for name, value in weights.items()}


@contextmanager
def using(parameters: Weights, weights: Weights) -> Iterator[None]:
    """Put weights into the parameters, and the current ones back; empty changes nothing."""
    if not weights:
        yield
        return
    current = copied(parameters)
    load_weights(parameters, weights)
    try:
        yield
    finally:
        load_weights(parameters, current)


def _require_fitting(parameters: Weights, weights: Weights) -> None:
    require_same_names(parameters, weights)
    for name, p in parameters.items():
        if p.shape != weights[name].shape:
            raise InputError(
                f"The saved weights must be of this network, got others: {name} has the shape "
                f"{tuple(weights[name].shape)} instead of {tuple(p.shape)}. Load them into the "
                "network that they were saved from."
            )


def require_same_names(parameters: Weights, saved: Mapping[str, object]) -> None:
    """Raise `InputError` where something was saved by the names of another network."""
    if odd := sorted(set(saved) ^ set(parameters))[:3]:
        raise InputError(
            f"The saved weights must be of this network, got others: they differ in {odd}. "
            "Load them into the network that they were saved from."
        )


# Parts of a training ----------------------------------------------------------------------------


class CurrentWeights:
    """The weights that are trained, as a part of a training: saved and loaded with it."""

    def __init__(self, parameters: Weights) -> None:
        self._parameters = parameters

    def state_dict(self) -> dict[str, object]:
        """Return the weights themselves, not copies."""
        return {name: p.detach() for name, p in self._parameters.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Copy saved weights into the parameters. Raises `InputError` for another network's."""
        load_weights(self._parameters, state)


class Averages:
    """Exponential moving averages of weights (EMA); `decay` 0 keeps none.

    The decay grows with the number of updates n to `decay`, as min(decay, (1 + n) / (10 + n)):
    the averages would otherwise keep the random initial weights.
    """

    def __init__(self, parameters: Weights, decay: float) -> None:
        require(0 <= decay < 1, "decay", "in [0, 1)", decay)
        self._parameters, self._decay = parameters, decay
        self.updates = 0
        self.weights = copied(parameters) if decay else {}

    @torch.no_grad()
    def update(self) -> None:
        """Move the averages towards the weights of now."""
        self.updates += 1
        decay = min(self._decay, (self.updates + 1) / (self.updates + 10))
        for name, value in self.weights.items():
            value.lerp_(self._parameters[name], 1 - decay)

    def state_dict(self) -> dict[str, object]:
        """Return the averages, and how often they were updated."""
        return {"updates": self.updates, "weights": dict(self.weights)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore saved averages."""
        self.updates = state["updates"]
        self.weights = on_device_of(self._parameters, state["weights"])


class BestWeights:
    """The weights with the best value so far, such as the lowest validation loss.

    `value` is infinite and `weights` empty until the first finite value is offered; `step` is the
    one of these weights.
    """

    def __init__(self, parameters: Weights, mode: Literal["min", "max"] = "min") -> None:
        require(mode in ("min", "max"), "mode", "min or max", mode)
        self._parameters, self.mode = parameters, mode
        self._sign = 1 if mode == "min" else -1
        self.value = self._sign * math.inf
        self.step: int | None = None
        self.weights: dict[str, Tensor] = {}

    def __bool__(self) -> bool:
        return bool(self.weights)

    def offer(self, value: float, step: int) -> bool:
        """Keep the weights of now where their value is better than all before; return whether."""
        # An infinite value would be the best one for ever, and what diverged is no best.
        if not math.isfinite(value) or self._sign * value >= self._sign * self.value:
            return False
        self.value, self.step, self.weights = value, step, copied(self._parameters)
        return True

    def state_dict(self) -> dict[str, object]:
        """Return the best value, its step and its weights."""
        return {"value": self.value, "step": self.step, "weights": dict(self.weights)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what was saved."""
        self.value, self.step = state["value"], state["step"]
        self.weights = on_device_of(self._parameters, state["weights"])


class Validation:
    """Validates weights every so many steps, and keeps the best ones.

    `losses` returns numbers by name for the weights of now, of which `measure` says how good they
    are. Equal weights must give equal numbers.
    """

    def __init__(
        self,
        best: BestWeights,
        losses: Callable[[], Mapping[str, float]],
        *,
        every: int,
        measure: str = "loss/valid",
    ) -> None:
        require_at_least(1, every=every)
        self._best, self._losses, self._measure = best, losses, measure
        self.every = every
        self.last = -1  # the step whose weights were validated last

    def is_due(self, step: int) -> bool:
        """Return whether the weights of a step are to be validated."""
        return step % self.every == 0

    def run(self, step: int) -> Mapping[str, float]:
        """Validate the weights of now, those after `step`; keep them if they are the best."""
        losses = self._losses()
        self.last = step
        if self._measure in losses:
            self._best.offer(losses[self._measure], step)
        return losses

    def state_dict(self) -> dict[str, object]:
        """Return the step that was validated last."""
        return {"last": self.last}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore it."""
        self.last = state["last"]
