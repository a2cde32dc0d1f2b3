"""One optimizer step: gradients are clipped, weights updated at the scheduled rate.

A part of a training. A process may have several, each for parameters of its own.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any, ClassVar

import torch

from ostinato.arguments import require_at_least
from ostinato.errors import EditError
from ostinato.journal import EditKind
from ostinato.train.optimizers import Optimizer
from ostinato.train.schedule import Schedule
from ostinato.train.weights import Weights, require_same_names


class Updater:
    """Updates parameters from their gradients; `steps` counts how often.

    `max_grad_norm` is the largest norm of all gradients together, to which they are scaled down;
    0 leaves them as they are. Edits: `lr` sets the peak of the schedule, `lr_scale` multiplies the
    rate.
    """

    known_edits: ClassVar[Mapping[str, EditKind]] = {"lr": "number", "lr_scale": "number"}

    def __init__(
        self,
        parameters: Weights,
        optimizer: Optimizer,
        schedule: Schedule,
        *,
        max_grad_norm: float = 0.0,
    ) -> None:
        require_at_least(0, max_grad_norm=max_grad_norm)
        self.parameters, self.optimizer, self.schedule = parameters, optimizer, schedule
        self.max_grad_norm = max_grad_norm
        self.steps = 0
        self._peak: float | None = None
        self.lr_scale = 1.0

    @property
    def lr(self) -> float:
        """The learning rate of the next step."""
        lr = self.schedule.at(self.steps)
        if self._peak is not None:
            lr *= self._peak / self.schedule.lr
        return lr * self.lr_scale

    def step(self) -> dict[str, float]:
        """Update the parameters and clear their gradients; return `lr` and `grad/norm`.

        The norm is that before clipping. Where it is not finite, nothing is scaled.
        """
        norm, lr = self._clip(), self.lr
        self.optimizer.step(self.parameters, lr, self.steps + 1)
        self.clear()
        self.steps += 1
        return {"lr": lr, "grad/norm": norm}

    def clear(self) -> None:
        """Forget the gradients, such as those that another network's loss left here."""
        for p in self.parameters.values():
            p.grad = None

    def _clip(self) -> float:
        grads = [p.grad for p in self.parameters.values() if p.grad is not None]
        if not grads:
            return 0.0
        norm = float(torch.linalg.vector_norm(torch.stack(torch._foreach_norm(grads))))
        # A NaN norm compares false: nothing is scaled, and `NotFinite` sees it in the report.
        if self.max_grad_norm and norm > self.max_grad_norm:
            torch._foreach_mul_(grads, self.max_grad_norm / norm)
        return norm

    # A part -----------------------------------------------------------------------------------

    def change(self, name: str, value: object) -> None:
        """Apply an edit. Raises `EditError` for a wrong value."""
        number = not_negative(name, value)
        if name == "lr":
            self._peak = number
        else:
            self.lr_scale *= number

    def state_dict(self) -> dict[str, object]:
        """Return the number of steps, the edits in force, and the optimizer's state."""
        state = {name: dict(tensors) for name, tensors in self.optimizer.state.items()}
        return {
            "steps": self.steps,
            "lr": self._peak,
            "lr_scale": self.lr_scale,
            "optimizer": state,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what was saved. Raises `InputError` for the state of other parameters."""
        kept = state["optimizer"]
        require_same_names({n: p for n, p in self.parameters.items() if n in kept}, kept)
        loaded = {
            name: {key: value.to(self.parameters[name].device).clone() for key, value in of.items()}
            for name, of in kept.items()
        }
        self.steps, self._peak, self.lr_scale = state["steps"], state["lr"], state["lr_scale"]
        self.optimizer.state.clear()
        self.optimizer.state.update(loaded)


def not_negative(name: str, value: object) -> float:
    """Return an edit's value as a number. Raises `EditError` if it is below 0 or not finite."""
    # Compared, not `isfinite`: that raises for an int beyond all floats.
    limit = sys.float_info.max
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= limit:
        raise EditError(f"{name} must be a number of 0 or more, got {value!r}.")
    return float(value)
