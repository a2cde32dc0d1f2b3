"""A lane in its slot: where it has stood, and what its edits leave in force. Knows no network."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TypeVar

from torch import Tensor

from ostinato.errors import EditError, InputError, ItemError
from ostinato.image.image_request import ImageRequest, pixels
from ostinato.image.solvers import Solver, solver_named
from ostinato.loop import Lane

Made = TypeVar("Made")

KNOWN = ("label", "guidance", "solver", "renoise")


@dataclass(slots=True)
class DenoiseSlot:
    """A lane in its slot; `images[p]` is its x at position p, `cleans[p]` the prediction there."""

    lane: Lane
    picture: ImageRequest
    first: int  # the step of the schedule that position 0 takes
    images: list[Tensor] = field(default_factory=list)
    cleans: list[Tensor] = field(default_factory=list)

    @property
    def position(self) -> int:
        """The number of steps that the lane has taken."""
        return len(self.cleans)

    @property
    def step(self) -> int:
        """The step of the schedule that the lane takes next."""
        return self.first + len(self.cleans)

    @property
    def remembers(self) -> bool:
        """Whether the lane has come from its last prediction to where it stands."""
        return self.position > 0 and self.renoised is None

    @property
    def renoised(self) -> object:
        """The image of the last `renoise` where the lane stands."""
        here = [edits for at, edits in self.lane.edits if at == self.position]
        images = [edits["renoise"] for edits in here if "renoise" in edits]
        return images[-1] if images else None

    @property
    def ahead(self) -> int | None:
        """The number of steps up to the next edit that waits for its position."""
        waiting = [at - self.position for at, _ in self.lane.edits if at > self.position]
        return min(waiting, default=None)


@dataclass(frozen=True, slots=True)
class DenoiseSettings:
    """What is in force at a position."""

    label: int | None
    guidance: float
    solver: Solver

    def edited(
        self, name: str, value: object, *, classes: int, shape: tuple[int, ...]
    ) -> DenoiseSettings:
        """Return the settings after an edit, for so many classes and images of a shape.

        Raises `EditError` for what is not known.
        """
        if name == "guidance":
            return replace(self, guidance=as_guidance(value, EditError))
        if name == "label":
            return replace(self, label=_as_label(value, classes))
        if name == "renoise":
            _as_edit(lambda: pixels(value, shape, "renoise"))
            return self
        if name == "solver":
            return replace(self, solver=_as_edit(lambda: solver_named(value)))
        raise EditError(f"Unknown edit {name!r} of Denoise. Known: {', '.join(KNOWN)}.")


def as_guidance(value: object, error: type[InputError] | type[EditError]) -> float:
    """Return a guidance as a float. Raises `error` where it is no finite number."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise error(f"guidance must be a finite number, got {value!r}. Take 1 for none.")
    return float(value)


def _as_label(value: object, classes: int) -> int | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < classes:
        expected = f"from 0 to {classes - 1}" if classes else "left out: the model has none"
        raise EditError(f"label must be {expected}, got {value!r}.")
    return value


def _as_edit(make: Callable[[], Made]) -> Made:
    """Tell what is wrong with an edit's value as an `EditError`."""
    try:
        return make()
    except (InputError, ItemError) as error:
        raise EditError(str(error)) from None
