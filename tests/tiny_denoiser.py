"""A denoiser that is small, quick and depends on everything that a real one does."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class TinyDenoiser(nn.Module):
    """Two convolutions around noise level and class; images in three classes.

    `channels` and `size` are those of the images: gray, 8 x 8.
    """

    classes = 3
    sigma_min, sigma_max, sigma_data = 0.05, 10.0, 0.5

    def __init__(self, channels: int = 1, size: int = 8) -> None:
        super().__init__()
        self.channels, self.size = channels, size
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.first = nn.Conv2d(channels, 16, 3, padding=1)
            self.second = nn.Conv2d(16, channels, 3, padding=1)
            self.embed = nn.Embedding(self.classes + 1, 16)

    def forward(self, x: Tensor, sigma: Tensor, label: Tensor | None) -> Tensor:
        """Return the clean prediction (B, channels, size, size)."""
        s = sigma[:, None, None, None]
        c_skip = self.sigma_data**2 / (s**2 + self.sigma_data**2)
        h = self.first(x / (s**2 + self.sigma_data**2).sqrt()) + s.log() / 4
        if label is not None:
            h = h + self.embed(label)[:, :, None, None]
        raw: Tensor = self.second(torch.tanh(h))
        return c_skip * x + (1 - c_skip) * torch.tanh(raw)
