"""Images of points: a lane process that decodes each in one step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from ostinato.errors import ItemError
from ostinato.image.vae.model import VAE
from ostinato.loop import Lane, Report


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


class DecodePoints:
    """Decode points, one call of the decoder each. Items are `Point`s.

    Each image is computed alone, so that it has the same bits in any company.
    """

    deterministic = True
    costs = ("calls",)

    def __init__(self, network: VAE, *, slots: int = 16) -> None:
        self.network, self.slots = network.eval(), slots
        self._lanes: dict[str, Point] = {}
        self._images: dict[str, Tensor] = {}

    def start(self, lane: Lane, item: object) -> None:
        """Give a slot to a point. Raises `ItemError` for one of another space."""
        latent = self.network.config.latent
        if not isinstance(item, Point) or (item.image is None and len(item.at) != latent):
            raise ItemError(f"A point must be a Point of {latent} numbers, got {item!r}.")
        lane.edits.check("a lane of DecodePoints", (), lambda name, value: None)
        self._lanes[lane.key] = item
        if lane.past:
            self._images[lane.key] = self._draw(item)

    def step(self) -> Mapping[str, Report]:
        """Decode the points of all lanes that have no image yet."""
        coming = {key: item for key, item in self._lanes.items() if key not in self._images}
        self._images |= {key: self._draw(item) for key, item in coming.items()}
        return {
            key: {"calls": int(item.image is None), "ended": "It was drawn in one step."}
            for key, item in coming.items()
        }

    def rewind(self, lane: Lane, to: int) -> None:
        """Forget the image of a lane."""
        item = self._lanes[lane.key]
        self.drop(lane.key)
        self.start(lane, item)

    def output(self, key: str) -> object:
        """Return a lane's image (C, S, S) in [-1, 1]; None before it is drawn."""
        return self._images.get(key)

    def drop(self, key: str) -> None:
        """Free the lane's slot."""
        self._lanes.pop(key, None)
        self._images.pop(key, None)

    def _draw(self, item: Point) -> Tensor:
        if item.image is not None:
            return torch.tensor(item.image)
        return self.network.decode(torch.tensor([item.at]))[0]
