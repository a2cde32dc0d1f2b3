"""A variational autoencoder (Kingma and Welling 2014): an image is a point of a space.

Points are normally distributed, so that a random one is an image too. Encoder and decoder are those
of every autoencoder here. Knows no training and no lanes.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ostinato.arguments import require_at_least
from ostinato.image import Autoencoder, AutoencoderConfig, halvings_for


@dataclass(frozen=True, kw_only=True)
class VAEConfig(AutoencoderConfig):
    """The architecture: an image is a point of `latent` numbers."""

    latent: int = 16

    def __post_init__(self) -> None:
        super().__post_init__()
        require_at_least(1, latent=self.latent)

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
    classes = 0  # it knows none

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
