"""A variational autoencoder (Kingma and Welling 2014): an image is a point of a space.

Points are normally distributed, so that a random one is an image too. Encoder and decoder are those
of every autoencoder here. Knows no training and no lanes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from ostinato.arguments import require_at_least
from ostinato.image import Autoencoder, AutoencoderConfig, Images, halvings_for
from ostinato.image.vae.config import PER_CLASS, WITHOUT_CLASSES
from ostinato.image.vae.prior import Points, Prior, fitted
from ostinato.models import network_folder

FITTED = 10_000  # images whose points the prior is fitted to, at most
BATCH = 250  # images that are encoded at once


@dataclass(frozen=True, kw_only=True)
class VAEConfig(AutoencoderConfig):
    """The architecture: an image is a point of `latent` numbers.

    The prior has `components` for each of the classes `names`, or in all; 0: it is the standard
    normal distribution.
    """

    latent: int = 16
    components: int = 0
    names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "names", tuple(self.names))
        require_at_least(1, latent=self.latent)
        require_at_least(0, components=self.components)

    @classmethod
    def for_images(
        cls, channels: int, size: int, *, width: int = 32, latent: int = 16
    ) -> VAEConfig:
        """Return an architecture with at most 8 x 8 positions before the point."""
        return cls(
            channels=channels, size=size, halvings=halvings_for(size), width=width, latent=latent
        )


class VAE(Autoencoder[VAEConfig]):
    """The autoencoder: `encode` and `decode` for use, `spread` and `draw` for training."""

    architecture = "ostinato.VAE"
    config_class = VAEConfig

    def __init__(self, config: VAEConfig, *, seed: int = 0) -> None:
        super().__init__(config, seed=seed)
        self.classes = len(config.names)
        self.prior = Prior(self.classes, config.components, config.latent)

    def _ends(self, last: int) -> tuple[nn.Module, nn.Module]:
        side, Z = self.config.side, self.config.latent
        into = nn.Sequential(nn.Flatten(), nn.Linear(last * side * side, 2 * Z))
        out_of = nn.Sequential(
            nn.Linear(Z, last * side * side), nn.Unflatten(1, (last, side, side))
        )
        return into, out_of

    def spread(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and log variance (B, Z) of the points of x (B, C, S, S) in [-1, 1]."""
        mean, log_variance = self.into(self._encoded(x)).chunk(2, dim=1)
        # Beyond these, exp overflows or the point is exact; no image needs them.
        return mean, log_variance.clamp(-12, 8)

    def draw(self, z: Tensor) -> Tensor:
        """Return the images (B, C, S, S) of points z (B, Z); about in [-1, 1]."""
        return self._decoded(z)

    def forward(self, x: Tensor) -> Tensor:
        """Return the reconstruction of x from the means."""
        return self.draw(self.spread(x)[0])

    @torch.no_grad()
    def fit_prior(self, images: Images, components: int | None = None) -> None:
        """Fit the prior to the points of images, with `components` for each of their classes.

        By default there are 10 of them, or 40 where images have no classes.
        """
        if components is None:
            components = PER_CLASS if images.names else WITHOUT_CLASSES
        # Of very many images, some say as much.
        order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
        some = images.at(order[:FITTED].sort().values)
        batches = torch.split(torch.arange(len(some)), BATCH)
        parts = [self.spread(some.at(batch).clean()) for batch in batches]
        means, log_variances = (torch.cat(each) for each in zip(*parts, strict=True))
        names = images.names if components else ()
        points = Points(means, log_variances.exp(), some.labels, len(names))
        self.prior, self.classes = fitted(points, components), len(names)
        self.config = replace(self.config, components=components, names=names)

    @torch.no_grad()
    def encode(self, pixels: Tensor) -> Tensor:
        """Return the means (N, Z) of uint8 images (N, C, S, S), each computed alone.

        So an image has the same point in any company.
        """
        self._check(pixels)
        clean = pixels.float() / 127.5 - 1
        points = [self.spread(each[None])[0] for each in clean]
        return torch.cat(points) if points else torch.zeros(0, self.config.latent)

    @torch.no_grad()
    def decode(self, points: Tensor) -> Tensor:
        """Return images (N, C, S, S) in [-1, 1] of points (N, Z), each computed alone."""
        c = self.config
        images = [self.draw(each[None]).clamp(-1, 1) for each in points]
        return torch.cat(images) if images else torch.zeros(0, c.channels, c.size, c.size)


def load_vae(name: str | Path) -> VAE:
    """Load the autoencoder of a folder. Raises `ModelError` for a folder that holds none."""
    return VAE.load(network_folder(name, "A variational autoencoder", "`ostinato train vae`"))
