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
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ostinato.errors import InputError
from ostinato.image import Autoencoder, AutoencoderConfig, fixed_batches, halvings_for

ARCHITECTURE = "ostinato.VQ"


@dataclass(frozen=True, kw_only=True)
class VQConfig(AutoencoderConfig):
    """The architecture of the autoencoder: an image of `size` has (size / 2^halvings)^2 codes.

    `levels` are the levels of each channel of a code, each at least 3; their product is the
    vocabulary.
    """

    levels: tuple[int, ...] = (8, 6, 5)

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "levels", tuple(self.levels))
        # Two levels lie at the edges, which `_bounded` never reaches: its atanh would be NaN.
        if not self.levels or min(self.levels) < 3:
            raise InputError(f"levels must each be at least 3, got {self.levels}. Use (8, 6, 5).")

    def __str__(self) -> str:
        # The order in which models recorded the fields: it is part of their fingerprint.
        return (
            f"VQConfig(channels={self.channels}, size={self.size}, halvings={self.halvings}, "
            f"levels={self.levels}, width={self.width})"
        )

    @classmethod
    def for_images(cls, channels: int, size: int, *, width: int = 32) -> VQConfig:
        """Return an architecture with at most 8 x 8 codes: 64 different ones for gray, else 240.

        A smaller vocabulary is learned sooner, and gray images lose little (docs/log.md).
        """
        levels = (8, 8) if channels == 1 else (8, 6, 5)
        return cls(
            channels=channels, size=size, halvings=halvings_for(size), levels=levels, width=width
        )


class VQ(Autoencoder[VQConfig]):
    """The autoencoder: `encode` and `decode` for use, `forward` for training."""

    architecture = ARCHITECTURE
    config_class = VQConfig
    basis: Tensor

    def __init__(self, config: VQConfig, *, seed: int = 0) -> None:
        super().__init__(config, seed=seed)
        steps = torch.tensor([1, *config.levels[:-1]]).cumprod(0)
        self.register_buffer("basis", steps, persistent=False)  # follows from the levels

    def _ends(self, last: int) -> tuple[nn.Module, nn.Module]:
        D = len(self.config.levels)
        return nn.Conv2d(last, D, 1), nn.Conv2d(D, last, 3, padding=1)

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

    # Parts ------------------------------------------------------------------------------------

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
