"""What a denoiser is trained on: noise levels, weights of the loss, and the recipe's settings.

The loss is that of EDM (Karras et al. 2022, section 5): with its weight, the network's output has
an error of the same size at every noise level. ln sigma is normally distributed; within a batch
its quantiles are evenly spread (stratified), so that no batch sees low noise alone. All that is
random is a function of (seed, step, element). Knows no loop.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from ostinato.errors import InputError
from ostinato.image.dataset import Images
from ostinato.image.solvers import SOLVERS, advance, jump_sigmas
from ostinato.image.unet import UNet, UNetConfig
from ostinato.loop import fold_in
from ostinato.media import in_grid, tiled, to_bytes
from ostinato.train import Loss, Share, TrainingConfig

BANDS = {"low": (0.0, 0.25), "mid": (0.25, 1.0), "high": (1.0, float("inf"))}
"""Noise levels that the report tells apart, as `loss/sigma_low` and so on."""

RECIPE = TrainingConfig(
    steps=2000,
    batch_tokens=64,
    optimizer="muon",
    lr=0.02,
    warmup_steps=50,
    min_lr_ratio=0.01,
    ema_decay=0.985,
    valid_every=200,
    sample_every=400,
)
"""How images are trained; `batch_tokens` are images of a batch."""


@dataclass(frozen=True, kw_only=True)
class NoiseLevels:
    """Which noise levels are learned, and how often without a class.

    ln (sigma / sigma_data) ~ N(mean, std^2): EDM's -0.4 is 0.3 over its ln 0.5.
    """

    mean: float = 0.3
    std: float = 1.2
    label_dropout: float = 0.1

    def __post_init__(self) -> None:
        if self.std <= 0:
            raise InputError(f"The std of ln sigma must be above 0, got {self.std}.")
        if not 0 <= self.label_dropout < 1:
            raise InputError(
                f"The share without a class must be in [0, 1), got {self.label_dropout}."
            )

    def levels(self, count: int, dice: torch.Generator) -> Tensor:
        """Draw sigma / sigma_data (count,), one from each of `count` equally likely bands."""
        u = (torch.arange(count) + torch.rand(count, generator=dice, dtype=torch.float64)) / count
        normal = torch.special.ndtri(u.clamp(1e-6, 1 - 1e-6))
        relative: Tensor = (self.mean + self.std * normal).exp().float()
        return relative


class ImageTask:
    """Denoising: the squared error of D(x; sigma), weighted, summed over images.

    `draw` is called with the network when a sample is due, and returns what the report shows.
    """

    def __init__(
        self,
        train: Images,
        valid: Images | None = None,
        *,
        noise: NoiseLevels | None = None,
        draw: Callable[[UNet], object] | None = None,
    ) -> None:
        self._train, self._valid, self._draw = train, valid, draw
        self.noise = noise or NoiseLevels()

    @property
    def lengths(self) -> Sequence[int]:
        """One for each image: batches are counted in images."""
        return [1] * len(self._train)

    def loss_tokens(self, chosen: Sequence[int]) -> int:
        """Return the number of images."""
        return len(chosen)

    def loss(self, network: nn.Module, chosen: Sequence[int], seed: int) -> Loss:
        """Return the loss of some images at drawn noise levels, some without their class."""
        losses, sigma = self._losses(
            network, self._train.at(chosen), seed, self.noise.label_dropout
        )
        return Loss(losses.sum(), {"images": len(chosen)}, by_band(losses.detach(), sigma))

    def validate(self, network: nn.Module, batch_tokens: int) -> Mapping[str, float]:
        """Return the mean loss with noise that is the same each time, overall and by band."""
        if self._valid is None or not len(self._valid):
            return {}
        sums = {"loss/valid": (0.0, 0.0)}
        for start in range(0, len(self._valid), batch_tokens):
            images = self._valid.at(range(start, min(start + batch_tokens, len(self._valid))))
            losses, sigma = self._losses(network, images, fold_in(0, "valid", start), 0.0)
            some = {"loss/valid": Share(float(losses.sum()), len(losses))}
            for name, (total, over) in (some | by_band(losses, sigma, "loss/valid_")).items():
                before = sums.get(name, (0.0, 0.0))
                sums[name] = (before[0] + total, before[1] + over)
        return {name: total / over for name, (total, over) in sums.items() if over}

    def sample(self, network: nn.Module) -> object:
        """Return what `draw` makes of the network."""
        assert isinstance(network, UNet)
        return None if self._draw is None else self._draw(network)

    def _losses(
        self, network: nn.Module, images: Images, seed: int, drop: float
    ) -> tuple[Tensor, Tensor]:
        """Return the weighted loss of each image (B,), and its noise level (B,)."""
        assert isinstance(network, UNet)
        dice = torch.Generator().manual_seed(seed)
        clean = images.clean()
        B = len(clean)
        sigma = self.noise.levels(B, dice) * network.sigma_data
        dropped = torch.rand(B, generator=dice) < drop
        noise = torch.randn(clean.shape, generator=dice)
        label = None
        if images.labels is not None and network.classes:
            label = torch.where(dropped, network.classes, images.labels)
        denoised = network(clean + sigma[:, None, None, None] * noise, sigma, label)
        d = network.sigma_data
        weight = (sigma**2 + d**2) / (sigma * d) ** 2  # 1 / c_out^2
        return weight * (denoised - clean).square().mean((1, 2, 3)), sigma


def by_band(losses: Tensor, sigma: Tensor, prefix: str = "loss/") -> dict[str, Share]:
    """Return the losses (B,) summed by the bands of their noise levels (B,)."""
    parts = {}
    for name, (low, high) in BANDS.items():
        inside = (sigma >= low) & (sigma < high)
        parts[f"{prefix}sigma_{name}"] = Share(float(losses[inside].sum()), int(inside.sum()))
    return parts


def shape_for(
    images: Images, *, width: int = 32, blocks: int = 1, unconditional: bool = False
) -> UNetConfig:
    """Return the shape of a network for some images: at most 16 x 16 places after the stem."""
    names = () if unconditional else images.names
    some = images.at(range(min(len(images), 2000))).clean()
    sigma_data = max(0.05, float(some.std()))
    return UNetConfig(
        channels=images.channels,
        size=images.size,
        classes=len(names),
        names=names,
        patch=-(-images.size // 16),
        widths=(width, 2 * width),
        blocks=blocks,
        mean=float(some.mean()),
        sigma_data=sigma_data,
        sigma_min=0.1 * sigma_data,
        sigma_max=160 * sigma_data,
    )


@torch.no_grad()
def preview(network: UNet, *, columns: int = 10, rows: int = 4, steps: int = 12) -> Tensor:
    """Return a grid of images from the same noise each time, a class a column.

    Euler steps (Karras et al. 2022, Algorithm 1 without its second half) are enough to look at.
    """
    columns = min(columns, network.classes) if network.classes else columns
    N, S = rows * columns, network.size
    dice = torch.Generator().manual_seed(fold_in(0, "preview"))
    sigmas = jump_sigmas(steps, network.sigma_min, network.sigma_max)
    x = torch.randn(N, network.channels, S, S, generator=dice) * sigmas[0]
    label = torch.arange(columns).repeat(rows) if network.classes else None
    for sigma, sigma_next in pairwise(sigmas):
        denoised = network(x, torch.full((N,), sigma), label)
        x = advance(SOLVERS["euler"], x, sigma, sigma_next, denoised)
    return to_bytes(tiled(in_grid(list(x), columns)))
