"""Training of denoisers: the task with its loss, the noise levels, and the recipe.

The loss is that of EDM (Karras et al. 2022, section 5). Its weight gives the network's output an
error of the same size at every noise level. ln sigma is normally distributed, and stratified within
a batch, so that no batch sees low noise alone. All randomness is a function of (seed, step,
element). Knows no loop.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from ostinato.arguments import require_types
from ostinato.errors import InputError
from ostinato.image.dataset import Images
from ostinato.image.solvers import SOLVERS, advance, jump_sigmas
from ostinato.image.unet import UNet, UNetConfig
from ostinato.loop import fold_in
from ostinato.media import gutter_of, in_grid, tiled, to_bytes
from ostinato.train import Loss, Share

BANDS = {"low": (0.0, 0.25), "mid": (0.25, 1.0), "high": (1.0, float("inf"))}
"""Bands of noise levels that are reported apart, as `loss/sigma_low` and so on.

The total hides where a denoiser improves: at high noise most of the loss cannot be learned away.
"""


@dataclass(frozen=True, kw_only=True)
class NoiseLevels:
    """The distribution of noise levels in training, and the share of images without a class.

    ln (sigma / sigma_data) ~ N(mean, std^2). A mean of 0.3 is EDM2's -0.4 of ln sigma at sigma_data
    0.5 (Karras et al. 2024). `label_dropout` is the probability of dropping a label
    (classifier-free guidance).
    """

    mean: float = 0.3
    std: float = 1.2
    label_dropout: float = 0.1

    def __post_init__(self) -> None:
        require_types(self)
        if self.std <= 0:
            raise InputError(f"The std of ln sigma must be above 0, got {self.std}.")
        if not 0 <= self.label_dropout < 1:
            raise InputError(f"label_dropout must be in [0, 1), got {self.label_dropout}. Use 0.1.")

    def levels(self, count: int, generator: torch.Generator) -> Tensor:
        """Draw sigma / sigma_data (count,), one from each of `count` equally likely strata."""
        u = (
            torch.arange(count) + torch.rand(count, generator=generator, dtype=torch.float64)
        ) / count
        normal = torch.special.ndtri(u.clamp(1e-6, 1 - 1e-6))  # infinite at 0 and 1
        relative: Tensor = (self.mean + self.std * normal).exp().float()
        return relative


class PerImageTask(ABC):
    """What training tasks on images share: every image has length 1, so batches count images.

    `count` is the number of training images. `terms` is the number of terms that the loss of one
    image is summed over. `sampler` is called with the network when a sample is due; its result goes
    into the report.
    """

    def __init__(
        self, count: int, *, terms: int = 1, sampler: Callable[[Any], object] | None = None
    ) -> None:
        self._count, self._terms, self._sampler = count, terms, sampler

    @property
    def lengths(self) -> Sequence[int]:
        """One for each training image."""
        return [1] * self._count

    def loss_tokens(self, chosen: Sequence[int]) -> int:
        """Return the number of terms that the loss of these images is summed over."""
        return len(chosen) * self._terms

    def sample(self, network: nn.Module) -> object:
        """Return the result of `sampler`; None without it."""
        return None if self._sampler is None else self._sampler(network)

    @abstractmethod
    def loss(self, network: nn.Module, chosen: Sequence[int], seed: int) -> Loss:
        """Return the summed loss of these images; all random numbers come from `seed`."""

    @abstractmethod
    def validate(self, network: nn.Module, batch_tokens: int) -> Mapping[str, float]:
        """Return mean losses of the held-out images, in batches of `batch_tokens` images."""


class ImageTask(PerImageTask):
    """Denoising: the weighted squared error of D(x; sigma), summed over images.

    `sampler` makes the sample of a report, such as `preview`.
    """

    def __init__(
        self,
        train: Images,
        valid: Images | None = None,
        *,
        noise: NoiseLevels | None = None,
        sampler: Callable[[UNet], object] | None = None,
    ) -> None:
        super().__init__(len(train), sampler=sampler)
        self._train, self._valid = train, valid
        self.noise = noise or NoiseLevels()

    def loss(self, network: nn.Module, chosen: Sequence[int], seed: int) -> Loss:
        """Return the loss of a batch at random noise levels, with some labels dropped."""
        dropout = self.noise.label_dropout
        losses, sigma = self._losses(network, self._train.at(chosen), seed, dropout)
        return Loss(losses.sum(), {"images": len(chosen)}, by_band(losses.detach(), sigma))

    def validate(self, network: nn.Module, batch_tokens: int) -> Mapping[str, float]:
        """Return the mean loss over the validation images, overall and by band.

        The noise is the same each time, so that validations can be compared.
        """
        if self._valid is None or not len(self._valid):
            return {}
        sums = {"loss/valid": (0.0, 0.0)}  # by metric: (total, number of images)
        for start in range(0, len(self._valid), batch_tokens):
            images = self._valid.at(range(start, min(start + batch_tokens, len(self._valid))))
            losses, sigma = self._losses(network, images, fold_in(0, "valid", start), 0.0)
            shares = {"loss/valid": Share(float(losses.sum()), len(losses))}
            for name, (total, count) in (shares | by_band(losses, sigma, "loss/valid_")).items():
                old_total, old_count = sums.get(name, (0.0, 0.0))
                sums[name] = (old_total + total, old_count + count)
        return {name: total / count for name, (total, count) in sums.items() if count}

    def _losses(
        self, network: nn.Module, images: Images, seed: int, drop: float
    ) -> tuple[Tensor, Tensor]:
        """Return the weighted loss (B,) and the noise level (B,) of each image."""
        assert isinstance(network, UNet)
        generator = torch.Generator().manual_seed(seed)
        clean = images.clean()
        B = len(clean)
        sigma = self.noise.levels(B, generator) * network.sigma_data
        dropped = torch.rand(B, generator=generator) < drop
        noise = torch.randn(clean.shape, generator=generator)
        label = None
        if images.labels is not None and network.classes:
            label = torch.where(dropped, network.classes, images.labels)
        denoised = network(clean + sigma[:, None, None, None] * noise, sigma, label)
        d = network.sigma_data
        weight = (sigma**2 + d**2) / (sigma * d) ** 2  # 1 / c_out^2: the error of F itself
        return weight * (denoised - clean).square().mean((1, 2, 3)), sigma


def by_band(losses: Tensor, sigma: Tensor, prefix: str = "loss/") -> dict[str, Share]:
    """Return losses (B,) summed by band of their noise levels (B,)."""
    parts = {}
    for name, (low, high) in BANDS.items():
        inside = (sigma >= low) & (sigma < high)
        parts[f"{prefix}sigma_{name}"] = Share(float(losses[inside].sum()), int(inside.sum()))
    return parts


def shape_for(
    images: Images, *, width: int = 32, blocks: int = 1, unconditional: bool = False
) -> UNetConfig:
    """Return the architecture for a data set: at most 16 x 16 positions after the stem.

    Mean and deviation of the pixels come from the first 2,000 images.
    """
    names = () if unconditional else images.names
    sample = images.at(range(min(len(images), 2000))).clean()
    sigma_data = max(0.05, float(sample.std()))  # images of one color have none
    return UNetConfig(
        channels=images.channels,
        size=images.size,
        classes=len(names),
        names=names,
        patch=-(-images.size // 16),  # rounded up
        # A third level of 128 channels trained 190 instead of 330 images a second (docs/log.md).
        widths=(width, 2 * width),
        blocks=blocks,
        # The data's own mean and deviation lowered the distance from 1.46 to 1.37 (docs/log.md).
        mean=float(sample.mean()),
        sigma_data=sigma_data,
        sigma_min=0.1 * sigma_data,
        sigma_max=160 * sigma_data,  # EDM: 80 at 0.5
    )


@torch.no_grad()
def preview(network: UNet, *, columns: int = 10, rows: int = 4, steps: int = 12) -> Tensor:
    """Return a grid of images as uint8 (C, H, W), a class in each column.

    The noise is always the same, so that grids can be compared. Euler steps are enough to look at
    (Karras et al. 2022, algorithm 1 without its second half).
    """
    columns = min(columns, network.classes) if network.classes else columns
    N, S = rows * columns, network.size
    generator = torch.Generator().manual_seed(fold_in(0, "preview"))
    sigmas = jump_sigmas(steps, network.sigma_min, network.sigma_max)
    x = torch.randn(N, network.channels, S, S, generator=generator) * sigmas[0]
    label = torch.arange(columns).repeat(rows) if network.classes else None
    for sigma, sigma_next in pairwise(sigmas):
        denoised = network(x, torch.full((N,), sigma), label)
        x = advance(SOLVERS["euler"], x, sigma, sigma_next, denoised)
    return to_bytes(tiled(in_grid(list(x), columns), gutter=gutter_of(S)))
