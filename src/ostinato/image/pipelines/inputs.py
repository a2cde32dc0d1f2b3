"""The item of a pipeline's lane, read and checked. Knows no pipeline."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

from ostinato.arguments import require, require_at_least
from ostinato.errors import InputError, ItemError
from ostinato.image import is_whole
from ostinato.loop import check_seed


@dataclass(frozen=True, kw_only=True)
class PipelineInputs:
    """The inputs of one image; None is the pipeline's own default.

    `guidance` above 1 pushes away from the negative prompt (classifier-free guidance), or is an
    input of a distilled network. `height` and `width` are pixels. Images with the same `seed` start
    from the same noise; without it, the run's seed and the item's key decide.
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
            require(value is None or isinstance(value, str), name, "a text", value)
        for name in ("height", "width", "steps"):
            value = getattr(self, name)
            if value is not None:
                require(is_whole(value), name, "a whole number", value)
                require_at_least(1, **{name: value})
        if self.guidance is not None:
            check_guidance(self.guidance)
        if self.seed is not None:
            check_seed(self.seed)


def check_guidance(value: object) -> float:
    """Return a guidance scale. Raises `InputError` for anything but a number from 0 to 1000."""
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1000:
        return float(value)
    raise InputError(f"guidance must be a number from 0 to 1000, got {value!r}.")


NAMES = tuple(spec.name for spec in fields(PipelineInputs))


def as_pipeline_inputs(item: object) -> PipelineInputs:
    """Read an item: a `PipelineInputs`, a text (its prompt), a mapping of its fields, or None.

    Raises `ItemError` for anything else, an unknown field or a value out of range.
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
