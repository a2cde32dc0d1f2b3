"""Training a variational autoencoder: the task with its loss, and the run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from ostinato.image import Images, ReconstructionTask, hold_out, read_image_set
from ostinato.image.vae.config import VaeTrainingRun
from ostinato.image.vae.model import VAE, VAEConfig
from ostinato.loop import fold_in
from ostinato.media import gutter_of, in_grid, tiled, to_bytes
from ostinato.train import Loss, Share, TrainingParts, task_parts

DEVIATION = 0.25
"""Deviation of a pixel in [-1, 1] from the decoded one, by which errors become nats.

About the root mean squared error that trainings end at, which is its best value (Rybkin et al.
2021, "Simple and Effective VAE Training with Calibrated Decoders").
"""
ACTIVE = 0.01
"""Variance of a unit's mean over images from which on it is active (Burda et al. 2016)."""


class VaeTask(ReconstructionTask):
    """Minimize the negative evidence lower bound in nats per image (Kingma and Welling 2014).

    `beta` weighs the KL divergence (Higgins et al. 2017). In each unit, its mean over a batch costs
    nothing up to `free_bits` nats (Kingma et al. 2016).
    """

    def __init__(
        self, train: Images, valid: Images, *, beta: float = 1.0, free_bits: float = 0.0
    ) -> None:
        shown = valid if len(valid) else train
        first = shown.at(range(min(len(shown), 8))).clean()
        super().__init__(train, valid, sampler=lambda network: preview(network, first))
        self.beta, self.free_bits = beta, free_bits

    def loss(self, network: nn.Module, chosen: Sequence[int], seed: int) -> Loss:
        """Return the loss of a batch, at points drawn from `seed`."""
        assert isinstance(network, VAE)
        clean = self._train.at(chosen).clean()
        mean, log_variance = network.spread(clean)
        generator = torch.Generator().manual_seed(seed)
        noise = torch.randn(mean.shape, generator=generator)
        error = _nats(network.draw(mean + (log_variance / 2).exp() * noise), clean)
        units = kl_of(mean, log_variance).sum(0)
        counted = units.clamp(min=self.free_bits * len(clean))
        parts = {
            "reconstruction": Share(float(error.detach()), len(clean)),
            "kl": Share(float(units.detach().sum()), len(clean)),
        }
        total = error + self.beta * counted.sum()
        return Loss(total, {"images": len(clean)}, parts)

    def validate(self, network: nn.Module, batch_tokens: int) -> Mapping[str, float]:
        """Return the mean loss of the validation images at their means, its parts, and the units.

        `active_units` counts those whose mean depends on the image: 0 is a posterior collapse,
        where the decoder draws the same of every image.
        """
        assert isinstance(network, VAE)
        count = len(self._valid)
        if not count:
            return {}
        error, divergence, means = 0.0, 0.0, []
        for part in self._held_out(batch_tokens):
            clean = part.clean()
            mean, log_variance = network.spread(clean)
            error += float(_nats(network.draw(mean), clean))
            divergence += float(kl_of(mean, log_variance).sum())
            means.append(mean)
        varied = torch.cat(means).var(0, unbiased=False) > ACTIVE
        return {
            "loss/valid": (error + self.beta * divergence) / count,
            "reconstruction/valid": error / count,
            "kl/valid": divergence / count,
            "active_units": int(varied.sum()),
        }


def kl_of(mean: Tensor, log_variance: Tensor) -> Tensor:
    """Return the KL divergence of each unit (B, Z) from a standard normal one, in nats."""
    return (mean.square() + log_variance.exp() - 1 - log_variance) / 2


def _nats(drawn: Tensor, clean: Tensor) -> Tensor:
    """Return the squared error, summed over pixels and images, as nats of a normal density."""
    return (drawn - clean).square().sum() / (2 * DEVIATION**2)


@torch.no_grad()
def preview(network: VAE, images: Tensor) -> Tensor:
    """Return a grid as uint8 (C, H, W): images, their reconstructions, and two rows of samples.

    The random points are always the same, so that grids can be compared.
    """
    count = len(images)
    generator = torch.Generator().manual_seed(fold_in(0, "preview"))
    points = torch.randn(2 * count, network.config.latent, generator=generator)
    tiles = [*images, *network(images), *network.draw(points)]
    grid = in_grid([each.clamp(-1, 1) for each in tiles], count)
    return to_bytes(tiled(grid, gutter=gutter_of(network.size)))


def prepare_vae_training(config: VaeTrainingRun) -> TrainingParts:
    """Read the images, and make the autoencoder. Raises `InputError` for bad input."""
    seed = config.training.seed
    images = read_image_set(config).without_classes()
    train, valid = hold_out(images, config.hold_out, seed=seed)
    shape = VAEConfig.for_images(
        images.channels, images.size, width=config.width, latent=config.latent
    )
    network = VAE(shape, seed=seed)

    def save(folder: Path) -> None:
        network.save(folder)

    return task_parts(
        network,
        VaeTask(train, valid, beta=config.beta, free_bits=config.free_bits),
        save=save,
        hashes={"data": images.fingerprint()},
        examples=(len(train), len(valid)),
    )
