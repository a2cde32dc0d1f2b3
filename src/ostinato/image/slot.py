"""A denoising lane in its slot: its states, and the settings that its edits leave in force.

Knows no network.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from torch import Tensor

from ostinato.errors import InputError
from ostinato.image.image_request import ImageRequest, is_whole
from ostinato.image.solvers import Solver, solver_named
from ostinato.journal import EditKind
from ostinato.loop import Lane

EDITS: Mapping[str, EditKind] = {
    "label": "any",
    "guidance": "number",
    "solver": "text",
    "renoise": "any",
}
SETTINGS = EDITS.keys() - {"renoise"}


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
        return self.lane.edits.newest_at(self.position, "renoise")

    @property
    def steps_to_edit(self) -> int | None:
        """The number of steps to the next edit of a later position, or None."""
        next_edit = self.lane.edits.next_after(self.position)
        return None if next_edit is None else next_edit - self.position


@dataclass(frozen=True, slots=True)
class DenoiseSettings:
    """The settings in force at a position."""

    label: int | None
    guidance: float
    solver: Solver

    def edited(self, name: str, value: object, classes: int) -> DenoiseSettings:
        """Return the settings after an edit of one; the network has so many `classes`.

        Raises `InputError` for a wrong value.
        """
        if name == "guidance":
            return replace(self, guidance=as_guidance(value))
        if name == "label":
            return replace(self, label=_as_label(value, classes))
        return replace(self, solver=solver_named(value))


def as_guidance(value: object) -> float:
    """Return a guidance scale as a float. Raises `InputError` where it is no finite number."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise InputError(f"guidance must be a finite number, got {value!r}. Take 1 for none.")
    return float(value)


def _as_label(value: object, classes: int) -> int | None:
    if value is None:
        return None
    if not (is_whole(value) and 0 <= value < classes):
        expected = f"from 0 to {classes - 1}" if classes else "left out: the model has none"
        raise InputError(f"label must be {expected}, got {value!r}.")
    return value
