"""Codecs, which turn images into codes and back; and the one without a network, rounded pixels."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from ostinato.errors import InputError
from ostinato.image.tokens.vq import VQ
from ostinato.models import read_config, write_config
from ostinato.text_files import read_object

ARCHITECTURE = "ostinato.PixelQuantizer"


class Codec(Protocol):
    """Turns images into codes and back: `VQ` or `PixelQuantizer`."""

    @property
    def vocabulary(self) -> int:
        """The number of different codes."""
        ...

    @property
    def positions(self) -> int:
        """The number of codes of an image, T."""
        ...

    def encode(self, pixels: Tensor) -> Tensor:
        """Return the codes (N, T) of uint8 images (N, C, S, S)."""
        ...

    def decode(self, codes: Tensor) -> Tensor:
        """Return uint8 images (N, C, S, S) of codes (N, T)."""
        ...

    def fingerprint(self) -> str:
        """Return a text that differs between codecs which give different codes."""
        ...

    def save(self, folder: Path) -> None:
        """Write the codec into a folder, for `load_codec`."""
        ...


@dataclass(frozen=True, kw_only=True)
class PixelQuantizer:
    """Pixels row by row, channel after channel, rounded to `levels` steps of brightness."""

    channels: int = 1
    size: int = 8
    levels: int = 8

    def __post_init__(self) -> None:
        if self.channels not in (1, 3) or not 8 <= self.size <= 64:
            raise InputError(
                "Images must have 1 or 3 channels and sides of 8 to 64 pixels, got "
                f"{self.channels} and {self.size}. Scale them."
            )
        if not 2 <= self.levels <= 256:
            raise InputError(f"levels must be 2 to 256, got {self.levels}. Use few, such as 4.")

    @property
    def vocabulary(self) -> int:
        """The number of levels."""
        return self.levels

    @property
    def positions(self) -> int:
        """The number of pixels times the channels."""
        return self.channels * self.size**2

    def encode(self, pixels: Tensor) -> Tensor:
        """Return the levels (N, T) of uint8 images (N, C, S, S)."""
        top = self.levels - 1
        codes = (pixels.permute(0, 2, 3, 1).float() * (top / 255)).round().long()
        return codes.flatten(1)

    def decode(self, codes: Tensor) -> Tensor:
        """Return uint8 images (N, C, S, S) of levels (N, T)."""
        pixels = (codes.float() * (255 / (self.levels - 1))).round().to(torch.uint8)
        return pixels.view(-1, self.size, self.size, self.channels).permute(0, 3, 1, 2).contiguous()

    def fingerprint(self) -> str:
        """Return the configuration as text."""
        return repr(self)

    def save(self, folder: Path) -> None:
        """Write `config.json`."""
        write_config(folder, {"architecture": ARCHITECTURE, **asdict(self)})


def load_codec(folder: Path) -> Codec:
    """Read the `PixelQuantizer` or the `VQ` that a folder holds. Raises `ModelError`."""
    if not _is_pixel_quantizer(folder / "config.json"):
        return VQ.load(folder)
    return read_config(folder, ARCHITECTURE, PixelQuantizer)


def _is_pixel_quantizer(path: Path) -> bool:
    try:
        return bool(read_object(path).get("architecture") == ARCHITECTURE)
    except InputError:
        return False  # `VQ.load` says what is wrong with the file
