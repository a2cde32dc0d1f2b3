"""A denoising lane in its slot: its states, and the settings that its edits leave in force.

Knows no network.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TypeVar

from torch import Tensor

from ostinato.arguments import did_you_mean
from ostinato.errors import EditError, InputError, ItemError
from ostinato.image.image_request import ImageRequest, is_whole, pixels
from ostinato.image.solvers import Solver, solver_named
from ostinato.journal import EditKind
from ostinato.loop import Lane

Value = TypeVar("Value")

EDITS: Mapping[str, EditKind] = {
    "label": "any",
    "guidance": "number",
    "solver": "text",
    "renoise": "any",
}


@dataclass(slots=True)
class DenoiseSlot:
    """A lane in its slot: `states[p]` is x at position p, `denoised[p]` its clean prediction.

    `states` has one entry more than `denoised`: where the lane is now has no prediction yet.
    """

    lane: Lane
    request: ImageRequest
    first: int  # the step of the schedule that position 0 takes; above 0 for a variation
    states: list[Tensor] = field(default_factory=list)
    denoised: list[Tensor] = field(default_factory=list)

    @property
    def position(self) -> int:
        """The number of steps that the lane has taken."""
        return len(self.denoised)

    @property
    def step(self) -> int:
        """The step of the schedule that the lane takes next."""
        return self.first + len(self.denoised)

    @property
    def has_history(self) -> bool:
        """Whether x follows from the last prediction: not at the start, nor after a `renoise`."""
        return self.position > 0 and self.renoised is None

    @property
    def renoised(self) -> object:
        """The image of the last `renoise` at the lane's position, or None."""
        here = [edits for at, edits in self.lane.edits if at == self.position]
        images = [edits["renoise"] for edits in here if "renoise" in edits]
        return images[-1] if images else None

    @property
    def steps_to_edit(self) -> int | None:
        """The number of steps to the next edit of a later position, or None."""
        waiting = [at - self.position for at, _ in self.lane.edits if at > self.position]
        return min(waiting, default=None)


@dataclass(frozen=True, slots=True)
class DenoiseSettings:
    """The settings in force at a position."""

    label: int | None
    guidance: float
    solver: Solver

    def edited(
        self, name: str, value: object, *, classes: int, shape: tuple[int, ...]
    ) -> DenoiseSettings:
        """Return the settings after an edit; `renoise` changes none of them, but is checked.

        `classes` and `shape` (C, H, W) are the network's. Raises `EditError` for an unknown edit or
        a wrong value.
        """
        if name == "guidance":
            return replace(self, guidance=as_guidance(value, EditError))
        if name == "label":
            return replace(self, label=_as_label(value, classes))
        if name == "renoise":
            _checked(lambda: pixels(value, shape, "renoise"))
            return self
        if name == "solver":
            return replace(self, solver=_checked(lambda: solver_named(value)))
        hint = did_you_mean(name, EDITS)
        raise EditError(f"Unknown edit {name!r} of Denoise. Known: {', '.join(EDITS)}.{hint}")


def as_guidance(value: object, error: type[InputError] | type[EditError]) -> float:
    """Return a guidance scale as a float. Raises `error` where it is no finite number."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise error(f"guidance must be a finite number, got {value!r}. Take 1 for none.")
    return float(value)


def _as_label(value: object, classes: int) -> int | None:
    if value is None:
        return None
    if not (is_whole(value) and 0 <= value < classes):
        expected = f"from 0 to {classes - 1}" if classes else "left out: the model has none"
        raise EditError(f"label must be {expected}, got {value!r}.")
    return value


def _checked(read: Callable[[], Value]) -> Value:
    """Read an edit's value; what is wrong with it becomes an `EditError`."""
    try:
        return read()
    except (InputError, ItemError) as error:
        raise EditError(str(error)) from None
