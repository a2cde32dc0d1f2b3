"""Images of a generator: a lane process that draws each in one step."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from ostinato.adversarial.networks import Generator, latents
from ostinato.errors import ItemError
from ostinato.image import ImageRequest, slerp
from ostinato.journal import Stopped
from ostinato.loop import Action, GiveUp, History, Lane, OnStop, Report, StartOver, fold_in


class Generate:
    """Draw images of noise, one network call each; another round has other noise.

    Items are `ImageRequest`s with a seed, a label, and perhaps a seed to interpolate to. Each image
    is computed alone, so that it has the same bits in any company.
    """

    deterministic = True
    costs = ("calls",)

    def __init__(self, network: Generator, *, slots: int = 16) -> None:
        self.network, self.slots = network.eval(), slots
        self._lanes: dict[str, tuple[Lane, ImageRequest]] = {}
        self._images: dict[str, Tensor] = {}

    def start(self, lane: Lane, item: object) -> None:
        """Give a slot to a request. Raises `ItemError` for one that needs another image."""
        if not isinstance(item, ImageRequest) or item.image is not None:
            raise ItemError("A generator draws new images: leave the image to change out.")
        lane.edits.check("a lane of Generate", (), lambda name, value: None)
        self._lanes[lane.key] = lane, item
        if lane.past:
            self._images[lane.key] = self._draw(lane, item)

    def step(self) -> Mapping[str, Report]:
        """Draw the images of all lanes that have none yet."""
        coming = {key: started for key, started in self._lanes.items() if key not in self._images}
        self._images |= {key: self._draw(*started) for key, started in coming.items()}
        return {key: {"calls": 1, "ended": "It was drawn in one step."} for key in coming}

    def rewind(self, lane: Lane, to: int) -> None:
        """Forget the image of a lane that is to be drawn again."""
        _, item = self._lanes[lane.key]
        self.drop(lane.key)
        self.start(lane, item)

    def output(self, key: str) -> object:
        """Return a lane's image (C, S, S) in [-1, 1]; None before it is drawn."""
        return self._images.get(key)

    def drop(self, key: str) -> None:
        """Free the lane's slot."""
        self._lanes.pop(key, None)
        self._images.pop(key, None)

    @torch.no_grad()
    def _draw(self, lane: Lane, item: ImageRequest) -> Tensor:
        device = next(self.network.parameters()).device
        label = None
        if self.network.classes:
            chosen = item.label
            if chosen is None:  # any class, which the noise's seed decides
                chosen = fold_in(item.seed or 0, "class", lane.round) % self.network.classes
            label = torch.tensor([chosen], device=device)
        images: Tensor = self.network(self._noise(lane, item).to(device), label)
        return images[0].cpu()

    def _noise(self, lane: Lane, item: ImageRequest) -> Tensor:
        """Return the noise (1, F) of a request in a lane's round."""
        seeds = [item.seed if item.seed is not None else fold_in(lane.seed, lane.key)]
        seeds += [] if item.interpolate_to is None else [item.interpolate_to]
        if lane.round:
            seeds = [fold_in(seed, "round", lane.round) for seed in seeds]
        noise = latents(seeds, self.network.config.latent)
        return noise if len(noise) == 1 else slerp(noise[0], noise[1], item.share)[None]


def draw_again(rounds: int) -> OnStop:
    """Make a strategy that draws an image that fails with other noise, in at most `rounds`."""

    def strategy(stopped: Stopped, history: History) -> Action:
        if history.lane.round + 1 >= rounds:
            return GiveUp(out_of_rounds=True)
        return StartOver(reason=stopped.sentence)

    return strategy
