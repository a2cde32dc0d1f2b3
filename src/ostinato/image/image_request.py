"""The item of a denoising lane: class, seed, and the image that it starts from.

Knows no network.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, TypeGuard

import torch
from torch import Tensor

from ostinato.arguments import did_you_mean
from ostinato.errors import ItemError


@dataclass(frozen=True, kw_only=True)
class ImageRequest:
    """An image to sample.

    `label` is its class; None: any. `seed` decides its noise: the same seed gives the same image in
    any batch; None: the run's seed and the item's key do. `interpolate_to` is a second seed, and
    `share` in [0, 1] says how far the noise is turned toward it.

    `image` (C, H, W) in [-1, 1], nested lists or a tensor, is varied. It is noised by `strength` in
    (0, 1] of the steps and denoised again (SDEdit, Meng et al. 2022). With `mask` (H, W), only the
    part where the mask is above 0 changes.
    """

    label: int | None = None
    seed: int | None = None
    interpolate_to: int | None = None
    share: float = 0.0
    image: object = None
    mask: object = None
    strength: float = 1.0

    @classmethod
    def of(cls, item: object) -> ImageRequest:
        """Read an item: an `ImageRequest`, a mapping of its fields, a class, or None.

        Raises `ItemError` for anything else.
        """
        if isinstance(item, ImageRequest):
            return item
        if item is None or is_whole(item):
            return cls(label=item)
        known = [spec.name for spec in fields(cls)]
        if not isinstance(item, Mapping):
            raise ItemError(
                f"An image request must be a class or a mapping of {', '.join(known)}, got "
                f"{type(item).__name__}."
            )
        for name in item:
            if name not in known:
                raise ItemError(
                    f"The fields of an image request must be {', '.join(known)}, got {name!r}."
                    f"{did_you_mean(name, known) or ' Leave it out.'}"
                )
        return cls(**item)

    def to_json(self) -> dict[str, object]:
        """Return the fields that are not None; tensors as nested lists."""
        values = {spec.name: getattr(self, spec.name) for spec in fields(self)}
        return {
            name: value.tolist() if isinstance(value, Tensor) else value
            for name, value in values.items()
            if value is not None
        }

    def check(self, *, channels: int, size: int, classes: int) -> None:
        """Raise `ItemError` where a network of this shape cannot sample it."""
        if self.label is not None and not (is_whole(self.label) and 0 <= self.label < classes):
            expected = f"from 0 to {classes - 1}" if classes else "left out: the model has none"
            raise ItemError(f"label must be {expected}, got {self.label!r}.")
        for name in ("seed", "interpolate_to"):
            value = getattr(self, name)
            if value is not None and not is_whole(value):
                raise ItemError(f"{name} must be a whole number, got {value!r}.")
        for name in ("share", "strength"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise ItemError(f"{name} must be a number, got {value!r}.")
        if not 0.0 <= self.share <= 1.0:
            raise ItemError(f"share must be in [0, 1], got {self.share}.")
        if not 0.0 < self.strength <= 1.0:
            raise ItemError(f"strength must be above 0 and at most 1, got {self.strength}.")
        if self.interpolate_to is not None and self.seed is None:
            raise ItemError("interpolate_to must come with seed, the one to start from. Give both.")
        if self.mask is not None and self.image is None:
            raise ItemError("mask must come with image, the one to keep elsewhere. Give both.")
        if self.image is None and self.strength < 1.0:
            raise ItemError("strength must come with image, the one to vary. Give both.")
        if self.image is not None:
            pixels(self.image, (channels, size, size), "image")
        if self.mask is not None:
            pixels(self.mask, (size, size), "mask")


def is_whole(value: object) -> TypeGuard[int]:
    """Return whether a value is a whole number; True and False are not."""
    return isinstance(value, int) and not isinstance(value, bool)


def pixels(value: object, shape: Sequence[int], what: str) -> Tensor:
    """Return nested lists or a tensor as float32 of `shape`; `what` names it in messages.

    Raises `ItemError` for another shape and for values that are not finite.
    """
    try:
        array: Any = value
        tensor = torch.as_tensor(array, dtype=torch.float32)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ItemError(f"{what} must be numbers of shape {tuple(shape)}, got: {error}.") from None
    if tensor.shape != tuple(shape):
        raise ItemError(
            f"{what} must have the shape {tuple(shape)}, got {tuple(tensor.shape)}. Resize it."
        )
    if not bool(tensor.isfinite().all()):
        raise ItemError(f"{what} must be finite, got infinities or NaN. Read it again.")
    return tensor
