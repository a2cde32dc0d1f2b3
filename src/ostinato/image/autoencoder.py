"""What autoencoders of images share: encoder, decoder, their files, and training by reconstruction.

What lies between encoder and decoder is a subclass's: discrete codes or a distribution. Knows no
loop.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any, ClassVar, Generic, Self, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ostinato.arguments import require_types
from ostinato.errors import InputError
from ostinato.image.dataset import Images
from ostinato.image.training import PerImageTask
from ostinato.models import load_network, save_network
from ostinato.train import Loss

GROUP = 16  # channels of a group in group normalization; widths must be multiples of it


@dataclass(frozen=True, kw_only=True)
class AutoencoderConfig:
    """The shape of an autoencoder: between encoder and decoder are (size / 2^halvings)^2 positions.

    `width` is the number of channels at the first level. A side that is no multiple of 2^halvings
    is padded.
    """

    channels: int = 1
    size: int = 28
    halvings: int = 2
    width: int = 32

    def __post_init__(self) -> None:
        require_types(self)
        if self.channels not in (1, 3):
            raise InputError(f"channels must be 1 or 3, got {self.channels}.")
        if not 8 <= self.size <= 64:
            raise InputError(f"size must be 8 to 64 pixels, got {self.size}.")
        if not 1 <= self.halvings <= 3:
            raise InputError(f"halvings must be 1 to 3, got {self.halvings}.")
        if self.width < GROUP or self.width % GROUP:
            raise InputError(f"width must be a multiple of {GROUP}, got {self.width}.")

    @property
    def side(self) -> int:
        """The number of positions along a side."""
        return -(-self.size // (1 << self.halvings))


def halvings_for(size: int) -> int:
    """Return how often a side is halved, so that at most 8 x 8 positions are left."""
    return max(1, math.ceil(math.log2(size / 8)))


Config = TypeVar("Config", bound=AutoencoderConfig)


class Autoencoder(nn.Module, ABC, Generic[Config]):
    """Encoder and decoder; a subclass makes what lies between them in `_ends`."""

    architecture: ClassVar[str]
    config_class: ClassVar[type[AutoencoderConfig]]
    config: Config

    def __init__(self, config: Config, *, seed: int = 0) -> None:
        super().__init__()
        self.config = config
        self.channels, self.size = config.channels, config.size
        with torch.random.fork_rng(devices=[]):  # the caller's random state stays as it is
            torch.manual_seed(seed)
            self._build(config)

    @abstractmethod
    def _ends(self, last: int) -> tuple[nn.Module, nn.Module]:
        """Return what follows the encoder, and what precedes the decoder, of `last` channels."""

    def _build(self, c: AutoencoderConfig) -> None:
        widths = [c.width * min(2**level, 4) for level in range(c.halvings)]
        down: list[nn.Module] = [nn.Conv2d(4 * c.channels, widths[0], 3, padding=1)]
        up: list[nn.Module] = []
        for level, width in enumerate(widths):
            if level:
                down.append(nn.Conv2d(widths[level - 1], width, 2, stride=2))
                up = [_Doubling(width, widths[level - 1]), *up]
            down.append(_Residual(width))
            up = [_Residual(width), *up]
        last = widths[-1]
        self.encoder = nn.Sequential(*down, nn.GroupNorm(last // GROUP, last), nn.SiLU())
        self.into, self.out_of = self._ends(last)
        self.decoder = nn.Sequential(*up, nn.Conv2d(widths[0], 4 * c.channels, 3, padding=1))

    def fingerprint(self) -> str:
        """Return the configuration and a hash of the weights: they decide what is encoded."""
        digest = blake2b(digest_size=8)
        for value in self.state_dict().values():
            digest.update(value.detach().contiguous().numpy().tobytes())
        return f"{self.config} {digest.hexdigest()}"

    def save(self, folder: Path) -> None:
        """Write `config.json` and `model.safetensors`."""
        save_network(folder, self.architecture, self.config, self)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what `save` wrote. Raises `ModelError` where it is missing or damaged."""
        make: Callable[[Any], Self] = cls
        return load_network(folder, cls.architecture, cls.config_class, make)

    def _encoded(self, x: Tensor) -> Tensor:
        pad = self.config.side * 2**self.config.halvings - self.config.size
        x = F.pad(x, (0, pad, 0, pad), value=-1.0)  # black
        y: Tensor = self.encoder(F.pixel_unshuffle(x, 2))
        return y

    def _decoded(self, values: Tensor) -> Tensor:
        S = self.config.size  # without the padding of `_encoded`
        return F.pixel_shuffle(self.decoder(self.out_of(values)), 2)[..., :S, :S]

    def _check(self, pixels: Tensor) -> None:
        c = self.config
        if pixels.shape[1:] != (c.channels, c.size, c.size):
            raise InputError(
                f"images must be (N, {c.channels}, {c.size}, {c.size}), got "
                f"{tuple(pixels.shape)}. Read them with that size and color."
            )


class _Residual(nn.Module):
    """Two convolutions within a residual, each after normalization and SiLU."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = (nn.GroupNorm(width // GROUP, width) for _ in range(2))
        self.conv1, self.conv2 = (nn.Conv2d(width, width, 3, padding=1) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to the same shape."""
        h = self.conv1(F.silu(self.norm1(x)))
        y: Tensor = x + self.conv2(F.silu(self.norm2(h)))
        return y


class _Doubling(nn.Module):
    """Doubles the side: four channels become 2 x 2 positions (`pixel_shuffle`)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, 4 * outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C', 2 H, 2 W)."""
        return F.pixel_shuffle(self.conv(x), 2)


class ReconstructionTask(PerImageTask):
    """Train an autoencoder: mean squared error of pixels in [-1, 1], summed over images."""

    def __init__(
        self,
        train: Images,
        valid: Images,
        *,
        sampler: Callable[[Any], object] | None = None,
    ) -> None:
        super().__init__(len(train), sampler=sampler)
        self._train, self._valid = train, valid

    def loss(self, network: nn.Module, chosen: Sequence[int], seed: int) -> Loss:
        """Return the error of a batch; `seed` is not used, as nothing is random."""
        return Loss(self._error(network, self._train.at(chosen)), {"images": len(chosen)})

    def validate(self, network: nn.Module, batch_tokens: int) -> Mapping[str, float]:
        """Return the mean error of the validation images."""
        if not len(self._valid):
            return {}
        total = sum(float(self._error(network, part)) for part in self._held_out(batch_tokens))
        return {"loss/valid": total / len(self._valid)}

    def _held_out(self, batch: int) -> Iterator[Images]:
        """Yield the validation images in batches."""
        count = len(self._valid)
        for at in range(0, count, batch):
            yield self._valid.at(range(at, min(at + batch, count)))

    def _error(self, network: nn.Module, images: Images) -> Tensor:
        clean = images.clean()
        error: Tensor = (network(clean) - clean).square().mean((1, 2, 3)).sum()
        return error
