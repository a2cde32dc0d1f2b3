"""Images of points: a lane process that decodes each in one step."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from ostinato.errors import ItemError
from ostinato.image import OneStep
from ostinato.image.vae.model import VAE
from ostinato.loop import Lane


@dataclass(frozen=True, kw_only=True)
class Point:
    """A point to decode, by its numbers; or an image that is shown as it is.

    `image` (C, S, S) in [-1, 1] as nested lists is an original beside its reconstruction.
    """

    at: tuple[float, ...] = ()
    image: object = None

    def to_json(self) -> dict[str, object]:
        """Return the fields that are given."""
        return {name: value for name, value in asdict(self).items() if value}


class DecodePoints(OneStep[Point]):
    """Decode points, one call of the decoder each. Items are `Point`s."""

    def __init__(self, network: VAE, *, slots: int = 16) -> None:
        super().__init__(slots=slots)
        self.network = network.eval()

    def item_of(self, item: object) -> Point:
        """Return a point. Raises `ItemError` for one of another space."""
        latent = self.network.config.latent
        if not isinstance(item, Point) or (item.image is None and len(item.at) != latent):
            raise ItemError(f"A point must be a Point of {latent} numbers, got {item!r}.")
        return item

    def calls(self, item: Point) -> int:
        """Return 1 for a point that is decoded."""
        return int(item.image is None)

    def draw(self, lane: Lane, item: Point) -> Tensor:
        """Decode a point."""
        if item.image is not None:
            return torch.tensor(item.image)
        return self.network.decode(torch.tensor([item.at]))[0]
