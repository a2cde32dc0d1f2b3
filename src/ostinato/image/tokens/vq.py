"""An autoencoder of images with discrete codes, so that an image is a row of tokens.

The architecture follows van den Oord et al., "Neural Discrete Representation Learning" (2017). The
quantizer is finite scalar quantization (Mentzer et al. 2023, section 3): each channel is squashed
and rounded to one of its levels, and the code is the number of that cell of a fixed grid. So there
is no codebook that must be learned or could collapse, and no state besides trained weights. Knows
no training and no lanes.

Codes are stable: an image has the same ones in any batch, after a load, on any number of threads.
The values to be rounded are computed in float64, where the order of a sum changes the fifteenth
digit. In float32 it changes the seventh, and so one in some million codes.
"""

from __future__ import annotations

import copy
import math
from dataclasses import asdict, dataclass
from hashlib import blake2b
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ostinato.arguments import require_types
from ostinato.errors import InputError
from ostinato.image import fixed_batches
from ostinato.models import read_config, read_weights, write_config, write_weights

ARCHITECTURE = "ostinato.VQ"
GROUP = 16  # channels of a group in group normalization; widths must be multiples of it


@dataclass(frozen=True, kw_only=True)
class VQConfig:
    """The architecture of the autoencoder: an image of `size` has (size / 2^halvings)^2 codes.

    `levels` are the levels of each channel of a code, each at least 3; their product is the
    vocabulary. `width` is the number of channels at the first level. A side that is no multiple of
    2^halvings is padded.
    """

    channels: int = 1
    size: int = 28
    halvings: int = 2
    levels: tuple[int, ...] = (8, 6, 5)
    width: int = 32

    def __post_init__(self) -> None:
        require_types(self)
        object.__setattr__(self, "levels", tuple(self.levels))
        if self.channels not in (1, 3):
            raise InputError(f"channels must be 1 or 3, got {self.channels}.")
        if not 8 <= self.size <= 64:
            raise InputError(f"size must be 8 to 64 pixels, got {self.size}.")
        if not 1 <= self.halvings <= 3:
            raise InputError(f"halvings must be 1 to 3, got {self.halvings}.")
        # Two levels lie at the edges, which `_bounded` never reaches: its atanh would be NaN.
        if not self.levels or min(self.levels) < 3:
            raise InputError(f"levels must each be at least 3, got {self.levels}. Use (8, 6, 5).")
        if self.width < GROUP or self.width % GROUP:
            raise InputError(f"width must be a multiple of {GROUP}, got {self.width}.")

    @classmethod
    def for_images(cls, channels: int, size: int, *, width: int = 32) -> VQConfig:
        """Return an architecture with at most 8 x 8 codes: 64 different ones for gray, else 240.

        A smaller vocabulary is learned sooner, and gray images lose little (docs/log.md).
        """
        halvings = max(1, math.ceil(math.log2(size / 8)))
        levels = (8, 8) if channels == 1 else (8, 6, 5)
        return cls(channels=channels, size=size, halvings=halvings, levels=levels, width=width)

    @property
    def side(self) -> int:
        """The number of codes along a side."""
        return -(-self.size // (1 << self.halvings))


class VQ(nn.Module):
    """The autoencoder: `encode` and `decode` for use, `forward` for training."""

    basis: Tensor

    def __init__(self, config: VQConfig, *, seed: int = 0) -> None:
        super().__init__()
        self.config = config
        steps = torch.tensor([1, *config.levels[:-1]]).cumprod(0)
        self.register_buffer("basis", steps, persistent=False)  # follows from the levels
        with torch.random.fork_rng(devices=[]):  # the caller's random state stays as it is
            torch.manual_seed(seed)
            self._build(config)

    def _build(self, c: VQConfig) -> None:
        widths = [c.width * min(2**level, 4) for level in range(c.halvings)]
        down: list[nn.Module] = [nn.Conv2d(4 * c.channels, widths[0], 3, padding=1)]
        up: list[nn.Module] = []
        for level, width in enumerate(widths):
            if level:
                down.append(nn.Conv2d(widths[level - 1], width, 2, stride=2))
                up = [_Doubling(width, widths[level - 1]), *up]
            down.append(_Residual(width))
            up = [_Residual(width), *up]
        last, D = widths[-1], len(c.levels)
        self.encoder = nn.Sequential(*down, nn.GroupNorm(last // GROUP, last), nn.SiLU())
        self.into = nn.Conv2d(last, D, 1)
        self.out_of = nn.Conv2d(D, last, 3, padding=1)
        self.decoder = nn.Sequential(*up, nn.Conv2d(widths[0], 4 * c.channels, 3, padding=1))

    # What callers use -------------------------------------------------------------------------

    @property
    def vocabulary(self) -> int:
        """The number of different codes."""
        return math.prod(self.config.levels)

    @property
    def positions(self) -> int:
        """The number of codes of an image."""
        return self.config.side**2

    def encode(self, pixels: Tensor) -> Tensor:
        """Return the codes (N, T) of uint8 images (N, C, S, S), row by row."""
        self._check(pixels)
        if not len(pixels):
            return torch.zeros(0, self.positions, dtype=torch.long)
        # A copy in float64: the network itself may still be in training, in float32.
        exact = copy.deepcopy(self).double().eval()
        return fixed_batches(exact._to_codes, pixels.double() / 127.5 - 1).flatten(1)

    def decode(self, codes: Tensor) -> Tensor:
        """Return uint8 images (N, C, S, S) of codes (N, T), the same in any batch."""
        if codes.dim() != 2 or codes.size(1) != self.positions:
            raise InputError(f"codes must be (N, {self.positions}), got {tuple(codes.shape)}.")
        if codes.numel() and not 0 <= int(codes.min()) <= int(codes.max()) < self.vocabulary:
            raise InputError(
                f"codes must be from 0 to {self.vocabulary - 1}, got {int(codes.min())} to "
                f"{int(codes.max())}. Use the autoencoder that made them."
            )
        images = fixed_batches(self._from_codes, codes.view(len(codes), *[self.config.side] * 2))
        return ((images.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)

    def forward(self, x: Tensor) -> Tensor:
        """Return the reconstruction of x (B, C, S, S) in [-1, 1].

        Gradients pass the rounding unchanged (the straight-through estimator).
        """
        z = self._bounded(self.into(self._encoded(x)))
        rounded = z + (z.round() - z).detach()
        return self._decoded(self._scaled(rounded))

    def fingerprint(self) -> str:
        """Return the configuration and a hash of the weights: they decide an image's codes."""
        digest = blake2b(digest_size=8)
        for value in self.state_dict().values():
            digest.update(value.detach().contiguous().numpy().tobytes())
        return f"{self.config} {digest.hexdigest()}"

    def save(self, folder: Path) -> None:
        """Write `config.json` and `model.safetensors`."""
        write_config(folder, {"architecture": ARCHITECTURE, **asdict(self.config)})
        write_weights(folder, self)

    @classmethod
    def load(cls, folder: Path) -> VQ:
        """Read what `save` wrote. Raises `ModelError` where it is missing or damaged."""
        network = cls(read_config(folder, ARCHITECTURE, VQConfig))
        read_weights(folder, network)
        return network

    # Parts ------------------------------------------------------------------------------------

    def _encoded(self, x: Tensor) -> Tensor:
        pad = self.config.side * 2**self.config.halvings - self.config.size
        x = F.pad(x, (0, pad, 0, pad), value=-1.0)  # black
        y: Tensor = self.encoder(F.pixel_unshuffle(x, 2))
        return y

    def _decoded(self, values: Tensor) -> Tensor:
        S = self.config.size  # without the padding of `_encoded`
        return F.pixel_shuffle(self.decoder(self.out_of(values)), 2)[..., :S, :S]

    def _levels(self) -> Tensor:
        return torch.tensor(self.config.levels, dtype=torch.float32)[:, None, None]

    def _bounded(self, z: Tensor) -> Tensor:
        """Squash z (B, D, H, W) so that it rounds to the levels (Mentzer et al., appendix A.1).

        The offset gives an even number of levels, which have no level at 0.
        """
        L = self._levels().to(z.dtype)
        half = (L - 1) * (1 - 1e-3) / 2  # 1e-3 as in the paper
        offset = (L % 2 == 0).to(z.dtype) / 2
        return (z + (offset / half).atanh()).tanh() * half - offset

    def _scaled(self, z: Tensor) -> Tensor:
        """Return rounded z scaled to about [-1, 1]."""
        return z / (self._levels() // 2)

    def _to_codes(self, x: Tensor) -> Tensor:
        z = self._bounded(self.into(self._encoded(x))).round() + self._levels() // 2
        return (z.long() * self.basis[:, None, None]).sum(1)

    def _from_codes(self, codes: Tensor) -> Tensor:
        L = torch.tensor(self.config.levels)[:, None, None]
        cells = codes[:, None] // self.basis[:, None, None] % L
        return self._decoded(self._scaled((cells - L // 2).float()))

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
