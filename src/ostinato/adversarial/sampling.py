"""Images of a generator: a lane process that draws each in one step."""

from __future__ import annotations

import torch
from torch import Tensor

from ostinato.adversarial.networks import Generator, latents
from ostinato.errors import ItemError
from ostinato.image import ImageRequest, OneStep, slerp
from ostinato.journal import Stopped
from ostinato.loop import Action, GiveUp, History, Lane, OnStop, StartOver, fold_in


class Generate(OneStep[ImageRequest]):
    """Draw images of noise, one network call each; another round has other noise.

    Items are `ImageRequest`s with a seed, a label, and perhaps a seed to interpolate to.
    """

    def __init__(self, network: Generator, *, slots: int = 16) -> None:
        super().__init__(slots=slots)
        self.network = network.eval()

    def item_of(self, item: object) -> ImageRequest:
        """Return a request. Raises `ItemError` for one that changes another image."""
        if not isinstance(item, ImageRequest) or item.image is not None:
            raise ItemError("A generator draws new images: leave the image to change out.")
        return item

    @torch.no_grad()
    def draw(self, lane: Lane, item: ImageRequest) -> Tensor:
        """Draw the image of a request in the round of its lane."""
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
