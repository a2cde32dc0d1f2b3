"""A small generator and discriminator of images, for CPUs: strided convolutions, no normalization.

The layout is that of DCGAN (Radford et al. 2016, section 3) without its batch normalization, which
gradient penalties forbid: they need scores that depend on one image each. Classes enter the
discriminator by projection (Miyato and Koyama, "cGANs with Projection Discriminator", 2018,
equation 4). Images are in [-1, 1]. Knows neither losses nor training.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ostinato.arguments import require, require_at_least, require_types
from ostinato.errors import InputError
from ostinato.image import Images
from ostinato.models import load_network, network_folder, save_network

ARCHITECTURE = "ostinato.Generator"
SLOPE = 0.2  # of the leaky rectifiers below 0, as in DCGAN
SMALLEST, LARGEST = 8, 64  # pixels a side


@dataclass(frozen=True, kw_only=True)
class GanConfig:
    """The architecture of a generator and its discriminator.

    `classes` 0: unconditional; `names` are those of the classes, or empty. `latent` is the size of
    the noise. `widths` are the generator's channels of each level from fine to coarse; each level
    halves the side. `discriminator_widths` are the discriminator's, by default the same, and
    `features` what it computes before its score.
    """

    channels: int = 1
    size: int = 28
    classes: int = 0
    names: tuple[str, ...] = ()
    latent: int = 64
    widths: tuple[int, ...] = (32, 64)
    discriminator_widths: tuple[int, ...] = ()
    features: int = 256

    def __post_init__(self) -> None:
        require_types(self)
        object.__setattr__(self, "names", tuple(self.names))
        object.__setattr__(self, "widths", tuple(self.widths))
        judged = tuple(self.discriminator_widths) or self.widths
        object.__setattr__(self, "discriminator_widths", judged)
        require(self.channels in (1, 3), "channels", "1 (gray) or 3 (color)", self.channels)
        require(
            SMALLEST <= self.size <= LARGEST, "size", f"{SMALLEST} to {LARGEST} pixels", self.size
        )
        require_at_least(1, latent=self.latent, features=self.features)
        require_at_least(0, classes=self.classes)
        if self.names and len(self.names) != self.classes:
            raise InputError(
                f"names must be one for each of {self.classes} classes, got {self.names}."
            )
        if not self.widths or min(self.widths) < 1 or 2 ** len(self.widths) > self.size:
            raise InputError(
                f"widths must be 1 to {self.size.bit_length() - 1} for {self.size} pixels, each "
                f"above 0, got {self.widths}."
            )
        if len(judged) != len(self.widths) or min(judged) < 1:
            raise InputError(
                f"discriminator_widths must be {len(self.widths)} as widths are, each above 0, got "
                f"{judged}."
            )

    @property
    def side(self) -> int:
        """The side of the coarsest level, in positions."""
        return -(-self.size // (1 << len(self.widths)))  # rounded up


def gan_for(
    images: Images, *, width: int = 32, latent: int = 64, discriminator_width: int | None = None
) -> GanConfig:
    """Return networks for a set of images: `width` channels at first, twice as many a level.

    The coarsest level has 4 to 8 positions a side. The discriminator has half the width, unless
    `discriminator_width` is given: it is computed with four times for each image.
    """
    levels = max(1, math.ceil(math.log2(images.size / 8)))
    judged = max(1, width // 2) if discriminator_width is None else discriminator_width
    return GanConfig(
        channels=images.channels,
        size=images.size,
        classes=len(images.names),
        names=images.names,
        latent=latent,
        widths=_doubling(width, levels),
        discriminator_widths=_doubling(judged, levels),
    )


def _doubling(first: int, levels: int) -> tuple[int, ...]:
    return tuple(first * 2**level for level in range(levels))


class Generator(nn.Module):
    """Makes images of noise: `forward(z (B, latent), label (B,) or None)` returns (B, C, S, S)."""

    def __init__(self, config: GanConfig, *, seed: int = 0) -> None:
        super().__init__()
        self.config = config
        self.channels, self.size, self.classes = config.channels, config.size, config.classes
        with torch.random.fork_rng(devices=[]):  # the caller's random state stays as it is
            torch.manual_seed(seed)
            self._build(config)

    def _build(self, c: GanConfig) -> None:
        self.classes_embed = nn.Embedding(c.classes, c.latent) if c.classes else None
        inputs = c.latent * (2 if c.classes else 1)
        self.stem = nn.Linear(inputs, c.widths[-1] * c.side**2)
        outputs = (c.channels, *c.widths)
        self.up = nn.ModuleList(
            nn.ConvTranspose2d(a, b, 4, stride=2, padding=1) for b, a in pairwise(outputs)
        )[::-1]
        _keep_variance(self)

    def forward(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        """Return images in [-1, 1]."""
        c = self.config
        if self.classes_embed is not None:
            z = torch.cat((z, self.classes_embed(_labels(c, label))), 1)
        x = self.stem(z).view(-1, c.widths[-1], c.side, c.side)
        for convolution in self.up:
            x = convolution(F.leaky_relu(x, SLOPE))
        images: Tensor = x[..., : c.size, : c.size].tanh()
        return images


class Discriminator(nn.Module):
    """Scores images, high for real ones: `forward(x (B, C, S, S), label (B,) or None)` gives (B,).

    Each score depends on its own image alone.
    """

    def __init__(self, config: GanConfig, *, seed: int = 0) -> None:
        super().__init__()
        self.config = config
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self._build(config)

    def _build(self, c: GanConfig) -> None:
        self.down = nn.ModuleList(
            nn.Conv2d(a, b, 4, stride=2, padding=1)
            for a, b in pairwise((c.channels, *c.discriminator_widths))
        )
        self.embedding = nn.Linear(c.discriminator_widths[-1] * c.side**2, c.features)
        self.out = nn.Linear(c.features, 1)
        self.classes_embed = nn.Embedding(c.classes, c.features) if c.classes else None
        _keep_variance(self)
        # Scores start small, and about as far apart between classes as between images.
        for layer in (self.out, self.classes_embed):
            if layer is not None:
                nn.init.normal_(layer.weight, std=0.1 / math.sqrt(c.features))

    def features(self, x: Tensor) -> Tensor:
        """Return what the score is a product of (B, F)."""
        side = self.config.side * 2 ** len(self.config.widths)
        x = F.pad(x, (0, side - x.size(3), 0, side - x.size(2)))
        for convolution in self.down:
            x = F.leaky_relu(convolution(x), SLOPE)
        return F.leaky_relu(self.embedding(x.flatten(1)), SLOPE)

    def forward(self, x: Tensor, label: Tensor | None = None) -> Tensor:
        """Return the scores of images in [-1, 1]."""
        h = self.features(x)
        score: Tensor = self.out(h).squeeze(1)
        if self.classes_embed is not None:
            score = score + (self.classes_embed(_labels(self.config, label)) * h).sum(1)
        return score


def _keep_variance(network: nn.Module) -> None:
    """Draw weights by which signals keep their variance, and set biases to 0.

    He et al., "Delving Deep into Rectifiers" (2015), section 2.2, equation 15. PyTorch's are
    smaller: signals of all images, and with them the scores, would start nearly equal.
    """
    for layer in network.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
            inputs = layer.weight[0].numel()
            if isinstance(
                layer, nn.ConvTranspose2d
            ):  # each output is a sum over a quarter of these
                inputs = layer.weight.size(0) * layer.weight[0, 0].numel() // 4
            nn.init.normal_(layer.weight, std=math.sqrt(2 / (1 + SLOPE**2) / inputs))
            assert layer.bias is not None
            nn.init.zeros_(layer.bias)


def _labels(config: GanConfig, label: Tensor | None) -> Tensor:
    if label is None:
        raise InputError(f"label must be given: the network has {config.classes} classes.")
    return label


def latents(seeds: Sequence[int], size: int) -> Tensor:
    """Return normal noise (len(seeds), size); each row depends on its own seed alone."""
    draws = torch.Generator()
    return torch.stack([torch.randn(size, generator=draws.manual_seed(seed)) for seed in seeds])


def save_generator(
    folder: str | Path, network: Generator, *, dtype: torch.dtype | None = None
) -> Path:
    """Write `config.json` and `model.safetensors`; return the folder.

    `dtype` is that of the file, such as a half precision; None keeps the network's.
    """
    return save_network(folder, ARCHITECTURE, network.config, network, dtype=dtype)


def load_generator(name: str | Path) -> Generator:
    """Load the generator of a folder, in float32.

    Raises `ModelError` for a folder that holds none, a damaged one, or another layout.
    """
    folder = network_folder(name, "A generator", "`ostinato train gan`")
    return load_network(folder, ARCHITECTURE, GanConfig, Generator)
