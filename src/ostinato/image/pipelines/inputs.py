"""What a lane is to make: an item as a pipeline understands it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

from ostinato.errors import InputError, ItemError
from ostinato.loop import check_seed


@dataclass(frozen=True, kw_only=True)
class PipelineInputs:
    """What is to be seen, and how it is made. What is None is the pipeline's own default.

    `guidance` pushes away from the negative prompt (above 1), or is the input of a network that was
    distilled to take it. `height` and `width` are pixels. Pictures with the same `seed` begin from
    the same noise; without one, the noise is that of the lane.
    """

    prompt: str | None = None
    negative_prompt: str | None = None
    guidance: float | None = None
    height: int | None = None
    width: int | None = None
    steps: int | None = None
    seed: int | None = None

    def __post_init__(self) -> None:
        for name in ("prompt", "negative_prompt"):
            value = getattr(self, name)
            if value is not None and not isinstance(value, str):
                raise InputError(f"{name} must be a text, got {value!r}.")
        for name in ("height", "width", "steps"):
            value = getattr(self, name)
            if value is not None and (isinstance(value, bool) or not isinstance(value, int)):
                raise InputError(f"{name} must be a whole number, got {value!r}.")
            if value is not None and value < 1:
                raise InputError(f"{name} must be at least 1, got {value}.")
        if self.guidance is not None:
            check_guidance(self.guidance)
        if self.seed is not None:
            check_seed(self.seed)


def check_guidance(value: object) -> float:
    """Return a guidance. Raises `InputError` where it is no number from 0 to 1000."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not 0 <= float(value) <= 1000:  # type: ignore[arg-type]
        raise InputError(f"guidance must be a number from 0 to 1000, got {value!r}.")
    return float(value)  # type: ignore[arg-type]


NAMES = tuple(spec.name for spec in fields(PipelineInputs))


def as_pipeline_inputs(item: object) -> PipelineInputs:
    """Read an item: a `PipelineInputs`, a text (its prompt), a mapping with its names, or None.

    Raises `ItemError` for anything else, an unknown name or a value out of range.
    """
    if isinstance(item, PipelineInputs):
        return item
    try:
        if item is None or isinstance(item, str):
            return PipelineInputs(prompt=item)
        if isinstance(item, Mapping) and set(item) <= set(NAMES):
            return PipelineInputs(**item)
    except InputError as error:
        raise ItemError(str(error)) from None
    raise ItemError(
        f"An item must be a text, or a mapping with some of {', '.join(NAMES)}, got {item!r}."
    )
