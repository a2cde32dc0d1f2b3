"""Running means and variances, by which observations and rewards are brought to one scale."""

from __future__ import annotations

import torch
from torch import Tensor, nn

CLIP = 10.0  # standard deviations, beyond which a value tells nothing more
EPSILON = 1e-8


class RunningMoments(nn.Module):
    """The mean and variance of all values so far (Chan et al. 1979), saved with the network."""

    count: Tensor
    mean: Tensor
    squares: Tensor

    def __init__(self, shape: tuple[int, ...] = ()) -> None:
        super().__init__()
        for name, size in (("count", ()), ("mean", shape), ("squares", shape)):
            self.register_buffer(name, torch.zeros(size, dtype=torch.float64))

    @torch.no_grad()
    def update(self, values: Tensor) -> None:
        """Take in values (N, *shape)."""
        values = values.double()
        n, mean = len(values), values.mean(0)
        total = self.count + n
        delta = mean - self.mean
        self.squares += (values - mean).square().sum(0) + delta.square() * self.count * n / total
        self.mean += delta * n / total
        self.count.copy_(total)

    @property
    def std(self) -> Tensor:
        """The standard deviation; 1 before there are values."""
        return (self.squares / self.count + EPSILON).sqrt() if self.count > 0 else 1 + self.squares

    def centered(self, values: Tensor) -> Tensor:
        """Return values minus the mean, over the standard deviation, clipped."""
        return ((values - self.mean) / self.std).clamp(-CLIP, CLIP).float()

    def scaled(self, values: Tensor) -> Tensor:
        """Return values over the standard deviation, clipped: zero stays zero."""
        return (values / self.std).clamp(-CLIP, CLIP).float()
