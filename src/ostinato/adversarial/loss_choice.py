"""Which loss a duel minimizes at a step, and with what penalty: a part that edits may change."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

from ostinato.adversarial.config import DuelConfig
from ostinato.adversarial.losses import (
    AdversarialLoss,
    Hinge,
    NonSaturating,
    Relativistic,
    Wasserstein,
)
from ostinato.errors import EditError
from ostinato.journal import EditKind
from ostinato.train import not_negative

PENALTIES = {"relativistic": 0.3, "non-saturating": 0.3, "wasserstein": 10.0, "hinge": 0.0}
"""Weights of the gradient penalties by loss, unless a configuration has one."""


def loss_of(config: DuelConfig, step: int = 0) -> AdversarialLoss:
    """Return the loss that a configuration names, as it is at a step.

    The penalty is computed every `penalty_every` steps and weighs as many times what it would at
    each: Karras et al., "Analyzing and Improving the Image Quality of StyleGAN" (2020), section
    3.1, "Lazy regularization".
    """
    every = penalty_interval(config)
    weight = PENALTIES[config.loss] if config.penalty is None else config.penalty
    weight *= every if step % every == 0 else 0
    match config.loss:
        case "relativistic":
            return Relativistic(gamma=weight)
        case "non-saturating":
            return NonSaturating(gamma=weight)
        case "wasserstein":
            return Wasserstein(weight=weight)
        case "hinge":
            return Hinge()


def penalty_interval(config: DuelConfig) -> int:
    """Return the steps between penalties: few where the loss is a distance only with them."""
    if config.penalty_every is not None:
        return config.penalty_every
    return 1 if config.loss == "wasserstein" else 8


class LossChoice:
    """The loss of a configuration.

    Edits: `loss` names another, with the penalty that it has by default; `penalty` sets the weight
    of the penalty.
    """

    known_edits: ClassVar[Mapping[str, EditKind]] = {"loss": "text", "penalty": "number"}

    def __init__(self, config: DuelConfig) -> None:
        self._config = config

    def at(self, step: int) -> AdversarialLoss:
        """Return the loss of a step."""
        return loss_of(self._config, step)

    def change(self, name: str, value: object) -> None:
        """Apply an edit. Raises `EditError` for a wrong value."""
        if name == "loss":
            self._name(value)
            return
        weight = not_negative(name, value)
        if self._config.loss == "hinge" and weight:
            raise EditError(f"penalty must be 0 with the hinge loss, which has none, got {weight}.")
        self._config = replace(self._config, penalty=weight)

    def _name(self, value: object) -> None:
        if not isinstance(value, str) or value not in PENALTIES:
            raise EditError(f"loss must be any of {', '.join(PENALTIES)}, got {value!r}.")
        if value != self._config.loss:
            changed: dict[str, Any] = {"loss": value, "penalty": None}
            self._config = replace(self._config, **changed)

    def state_dict(self) -> dict[str, object]:
        """Return what edits may have changed."""
        return {"loss": self._config.loss, "penalty": self._config.penalty}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore it."""
        self._config = replace(self._config, loss=state["loss"], penalty=state["penalty"])
