"""The task of training a variational autoencoder: its loss, its validation, its grid."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ostinato.image import Images, ReconstructionTask
from ostinato.image.vae.model import VAE
from ostinato.journal import EditKind
from ostinato.loop import fold_in
from ostinato.media import gutter_of, in_grid, tiled, to_bytes
from ostinato.train import Loss, Share, not_negative

COLUMNS = 10  # of the grid of a report
PREVIEWED = 2000  # images to whose points the prior of a report's samples is fitted
ACTIVE = 0.01
"""Variance of a unit's mean over images from which on it is active (Burda et al. 2016)."""


LEVELS = 127.5  # gray levels in 1, for pixels in [-1, 1]
LEAST_ERROR = (1 / LEVELS) ** 2 / 12  # squared, of rounding to a level: no pixel is known better


class VaeTask(ReconstructionTask):
    """Minimize the negative evidence lower bound in nats per image (Kingma and Welling 2014).

    A pixel is normally distributed around the decoded one, with the deviation that makes the batch
    most likely: the optimal sigma of Rybkin et al. 2021, "Simple and Effective VAE Training with
    Calibrated Decoders". So errors and the KL divergence are on one scale whatever the images are.
    `beta` weighs the KL divergence (Higgins et al. 2017). In each unit, its mean over a batch costs
    nothing up to `free_bits` nats (Kingma et al. 2016). The samples of a report are drawn from a
    prior of `components` (`VAE.fit_prior`).

    Edits: `beta`, `free_bits`; `beta_scale` multiplies `beta`.
    """

    known_edits: ClassVar[Mapping[str, EditKind]] = {
        "beta": "number",
        "beta_scale": "number",
        "free_bits": "number",
    }

    def __init__(
        self,
        train: Images,
        valid: Images,
        *,
        beta: float = 1.0,
        free_bits: float = 0.0,
        components: int | None = None,
    ) -> None:
        shown = valid if len(valid) else train
        first = shown.at(range(min(len(shown), COLUMNS))).clean()
        some = train.at(range(0, len(train), max(1, len(train) // PREVIEWED)))

        def sampler(network: VAE) -> Tensor:
            network.fit_prior(some, components)
            return preview(network, first)

        super().__init__(train, valid, sampler=sampler)
        self.beta, self.free_bits = beta, free_bits

    def loss(self, network: nn.Module, chosen: Sequence[int], seed: int) -> Loss:
        """Return the loss of a batch, at points drawn from `seed`."""
        assert isinstance(network, VAE)
        clean = self._train.at(chosen).clean()
        mean, log_variance, squares = _reconstructed(network, clean, seed)
        error = nats(squares, clean.numel())
        units = kl_of(mean, log_variance).sum(0)
        counted = units.clamp(min=self.free_bits * len(clean))
        parts = {
            "reconstruction": Share(float(error.detach()), len(clean)),
            "kl": Share(float(units.detach().sum()), len(clean)),
        }
        total = error + self.beta * counted.sum()
        return Loss(total, {"images": len(clean)}, parts)

    def validate(self, network: nn.Module, batch_tokens: int) -> Mapping[str, float]:
        """Return the bound of the held-out images, its parts, and the units.

        `loss/valid` is the negative bound in nats per image, whatever `beta` is, so that it can be
        compared. `active_units` counts those whose mean depends on the image: 0 is a posterior
        collapse, where the decoder draws the same of every image.
        """
        assert isinstance(network, VAE)
        count = len(self._valid)
        if not count:
            return {}
        squares, divergence, means = 0.0, 0.0, []
        for index, part in enumerate(self._held_out(batch_tokens)):
            seed = fold_in(0, "valid", index)  # always the same, so that values can be compared
            mean, log_variance, error = _reconstructed(network, part.clean(), seed)
            squares += float(error)
            divergence += float(kl_of(mean, log_variance).sum()) / count
            means.append(mean)
        numbers = self._valid.pixels.numel()
        error = nats(torch.tensor(squares), numbers) / count
        varied = torch.cat(means).var(0, unbiased=False) > ACTIVE
        bound = float(error) + divergence
        return {
            "loss/valid": bound,
            "bits_per_dim": bound / (numbers / count) / math.log(2),
            "reconstruction/valid": float(error),
            "deviation/valid": math.sqrt(squares / numbers) / 2,
            "kl/valid": divergence,
            "active_units": int(varied.sum()),
        }

    # A part of a training ---------------------------------------------------------------------

    def change(self, name: str, value: object) -> None:
        """Apply an edit. Raises `EditError` for a wrong value."""
        number = not_negative(name, value)
        if name == "beta_scale":
            self.beta *= number
        else:
            setattr(self, name, number)

    def state_dict(self) -> dict[str, object]:
        """Return the settings that edits may have changed."""
        return {"beta": self.beta, "free_bits": self.free_bits}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the settings."""
        self.beta, self.free_bits = state["beta"], state["free_bits"]


def _reconstructed(network: VAE, clean: Tensor, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return mean, log variance (B, Z) and the summed squared error, at points from `seed`."""
    mean, log_variance = network.spread(clean)
    noise = torch.randn(mean.shape, generator=torch.Generator().manual_seed(seed))
    drawn = network.draw(mean + (log_variance / 2).exp() * noise)
    return mean, log_variance, (drawn - clean).square().sum()


def kl_of(mean: Tensor, log_variance: Tensor) -> Tensor:
    """Return the KL divergence of each unit (B, Z) from a standard normal one, in nats."""
    return (mean.square() + log_variance.exp() - 1 - log_variance) / 2


def nats(squares: Tensor, count: int) -> Tensor:
    """Return the negative log likelihood of `count` pixels of 8 bits, in nats.

    `squares` is the sum of their squared errors in [-1, 1]; the deviation is the likeliest one.
    """
    variance = (squares.detach() / count).clamp(min=LEAST_ERROR)
    level = math.log(LEVELS) + math.log(2 * math.pi) / 2
    return count * (level + variance.log() / 2) + squares / (2 * variance)


@torch.no_grad()
def preview(network: VAE, images: Tensor) -> Tensor:
    """Return a grid as uint8 (C, H, W): images, their reconstructions, and two rows of samples.

    The random points are always the same, so that grids can be compared; classes take turns.
    """
    count = len(images)
    draws = torch.Generator().manual_seed(fold_in(0, "preview"))
    labels = [n % network.classes if network.classes else None for n in range(2 * count)]
    points = torch.stack([network.prior.draw(draws, label) for label in labels])
    tiles = [*images, *network(images), *network.draw(points)]
    grid = in_grid([each.clamp(-1, 1) for each in tiles], count)
    return to_bytes(tiled(grid, gutter=gutter_of(network.size)))
