"""A small denoiser for CPUs: a U-Net of residual blocks with the preconditioning of EDM.

Karras et al., "Elucidating the Design Space of Diffusion-Based Generative Models" (2022), section
5 and Table 1: `D(x; sigma) = c_skip x + c_out F(c_in x; c_noise)`. Here x is centered on the mean
of the data, which is 0 in the paper. Images are in [-1, 1], and x = clean + sigma * noise.

The stem folds patches of pixels into channels, as a vision transformer does, so the convolutions
run on fewer positions of more channels. Knows neither sampling nor training.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ostinato.arguments import require_at_least, require_types
from ostinato.errors import InputError
from ostinato.models import load_network, network_folder, save_network

Layer = TypeVar("Layer", nn.Conv2d, nn.Linear)

ARCHITECTURE = "ostinato.UNet"
SHIPPED = Path(__file__).parent / "shipped"
GROUP = 16  # channels of a group in group normalization; widths must be multiples of it
FREQUENCIES = 32  # features of the noise level: half sines, half cosines


@dataclass(frozen=True, kw_only=True)
class UNetConfig:
    """The architecture of a denoiser, and the noise levels that it is trained for.

    `classes` 0: unconditional; `names` are those of the classes, or empty. `widths` are the
    channels of each level; the side is halved from one level to the next. `blocks` is the number of
    residual blocks per level of the encoder; the decoder has one more. Attention runs on the last
    level, `head` channels a head. `mean` and `sigma_data` are mean and standard deviation of the
    pixels.
    """

    channels: int = 1
    size: int = 28
    classes: int = 0
    names: tuple[str, ...] = ()
    patch: int = 2
    widths: tuple[int, ...] = (64, 128)
    blocks: int = 2
    embedding: int = 256
    head: int = 32
    mean: float = 0.0
    sigma_data: float = 0.5
    sigma_min: float = 0.02
    sigma_max: float = 80.0

    def __post_init__(self) -> None:
        require_types(self)
        object.__setattr__(self, "widths", tuple(self.widths))
        object.__setattr__(self, "names", tuple(self.names))
        for name in ("channels", "size", "patch", "blocks", "embedding", "head"):
            require_at_least(1, **{name: getattr(self, name)})
        require_at_least(0, classes=self.classes)
        if self.names and len(self.names) != self.classes:
            raise InputError(
                f"names must be one for each of {self.classes} classes, got {self.names}."
            )
        if not self.widths or any(w < GROUP or w % GROUP for w in self.widths):
            raise InputError(f"widths must be multiples of {GROUP}, got {self.widths}.")
        if self.widths[-1] % self.head:
            raise InputError(
                f"The last of widths must be a multiple of head, got {self.widths[-1]} and "
                f"{self.head}."
            )
        if not 0 < self.sigma_min < self.sigma_max or self.sigma_data <= 0:
            raise InputError(
                "sigma_min must be above 0 and below sigma_max, and sigma_data above 0, got "
                f"{self.sigma_min}, {self.sigma_max} and {self.sigma_data}."
            )


class UNet(nn.Module):
    """The denoiser D(x; sigma): predicts the clean image.

    `forward(x (B, C, H, W), sigma (B,), label (B,) int64 or None)` returns (B, C, H, W). The label
    `classes` means no class, as does None.
    """

    def __init__(self, config: UNetConfig, *, seed: int = 0) -> None:
        super().__init__()
        self.config = config
        self.channels, self.size, self.classes = config.channels, config.size, config.classes
        self.sigma_min, self.sigma_max = config.sigma_min, config.sigma_max
        self.sigma_data = config.sigma_data
        with torch.random.fork_rng(devices=[]):  # the caller's random state stays as it is
            torch.manual_seed(seed)
            self._build(config)
        channels_last(self)

    def _build(self, c: UNetConfig) -> None:
        # The order of these lines decides which random numbers a layer gets.
        pixels, widths = c.channels * c.patch**2, c.widths
        self.noise = nn.Sequential(nn.Linear(FREQUENCIES, c.embedding), nn.SiLU())
        # One row more than classes: the last is "no class", for guidance.
        self.classes_embed = nn.Embedding(c.classes + 1, c.embedding) if c.classes else None
        self.mix = nn.Sequential(nn.Linear(c.embedding, c.embedding), nn.SiLU())
        self.stem = nn.Conv2d(pixels, widths[0], 3, padding=1)
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        # `skips` are the channels that the encoder leaves for the decoder, last in, first out.
        skips, now = [widths[0]], widths[0]
        for level, width in enumerate(widths):
            if level:
                self.down.append(nn.Conv2d(now, width, 2, stride=2))
                now = width
                skips.append(now)
            for _ in range(c.blocks):
                self.down.append(ResidualBlock(now, width, c.embedding))
                now = width
                skips.append(now)
        # Attention on the smallest level only: its cost grows with the fourth power of the side.
        self.middle = SpatialAttention(now, c.head)
        for level, width in reversed(list(enumerate(widths))):
            for _ in range(c.blocks + 1):
                self.up.append(ResidualBlock(now + skips.pop(), width, c.embedding))
                now = width
            if level:
                # Four times the channels: `pixel_shuffle` makes 2 x 2 positions of them.
                self.up.append(nn.Conv2d(now, widths[level - 1] * 4, 1))
                now = widths[level - 1]
        self.norm_out = nn.GroupNorm(now // GROUP, now)
        self.out = zeroed(nn.Conv2d(now, pixels, 3, padding=1))

    def forward(self, x: Tensor, sigma: Tensor, label: Tensor | None = None) -> Tensor:
        """Return the expected clean image of `x` at noise level `sigma`."""
        sigma = sigma.to(torch.float32)
        s, d, mean = sigma[:, None, None, None], self.sigma_data, self.config.mean
        x = x - mean
        c_skip = d**2 / (s**2 + d**2)
        c_out = s * d / (s**2 + d**2).sqrt()
        c_in = 1 / (s**2 + d**2).sqrt()
        c_noise = sigma.log() / 4
        denoised: Tensor = c_skip * x + c_out * self._raw(c_in * x, c_noise, label) + mean
        return denoised

    def _raw(self, x: Tensor, c_noise: Tensor, label: Tensor | None) -> Tensor:
        """Run F of the paper on inputs of variance 1: (B, C, H, W) to the same shape."""
        H, W = x.shape[-2:]
        x = self._fold(x)
        emb = self._embed(c_noise, label)  # (B, E)
        x = self.stem(x)
        skips = [x]
        for part in self.down:
            x = part(x, emb) if isinstance(part, ResidualBlock) else part(x)
            skips.append(x)
        x = self.middle(x)
        for part in self.up:
            if isinstance(part, ResidualBlock):
                x = part(torch.cat((x, skips.pop()), 1), emb)
            else:
                x = F.pixel_shuffle(part(x), 2).contiguous(memory_format=torch.channels_last)
        x = self.out(F.silu(self.norm_out(x)))
        return F.pixel_shuffle(x, self.config.patch)[..., :H, :W]

    def _fold(self, x: Tensor) -> Tensor:
        """Fold patches into channels; pad to a whole number of positions on the deepest level."""
        side = self.config.patch * 2 ** (len(self.config.widths) - 1)
        H, W = x.shape[-2:]
        x = F.pad(x, (0, -W % side, 0, -H % side))
        x = F.pixel_unshuffle(x, self.config.patch)
        return x.contiguous(memory_format=torch.channels_last)  # (B, C patch^2, H/patch, W/patch)

    def _embed(self, c_noise: Tensor, label: Tensor | None) -> Tensor:
        """Return the embedding (B, E) of noise level and class."""
        emb: Tensor = self.noise(frequencies(c_noise))
        if self.classes_embed is not None:
            if label is None:
                label = torch.full((len(c_noise),), self.classes, device=c_noise.device)
            emb = emb + self.classes_embed(label)
        mixed: Tensor = self.mix(emb)
        return mixed


def frequencies(t: Tensor) -> Tensor:
    """Return sines and cosines (B, 32) of t (B,), which is about within [-2, 2]."""
    w = torch.exp(torch.linspace(math.log(0.5), math.log(30.0), FREQUENCIES // 2))
    angles = t[:, None] * w.to(t.device)
    return torch.cat((angles.sin(), angles.cos()), 1)


class ResidualBlock(nn.Module):
    """Two convolutions within a residual; the embedding scales and shifts what lies between."""

    def __init__(self, inputs: int, outputs: int, embedding: int) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(inputs // GROUP, inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.affine = zeroed(nn.Linear(embedding, 2 * outputs))
        self.norm2 = nn.GroupNorm(outputs // GROUP, outputs)
        self.conv2 = zeroed(nn.Conv2d(outputs, outputs, 3, padding=1))
        self.skip = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        """Map (B, C, H, W) and emb (B, E) to (B, C', H, W)."""
        h = self.conv1(F.silu(self.norm1(x)))
        scale, shift = self.affine(emb)[:, :, None, None].chunk(2, 1)
        h = torch.addcmul(shift, self.norm2(h), scale + 1)  # one pass over memory instead of two
        y: Tensor = self.skip(x) + self.conv2(F.silu(h))
        return y


class SpatialAttention(nn.Module):
    """Self-attention over all positions, within a residual."""

    def __init__(self, width: int, head: int) -> None:
        super().__init__()
        self.heads = width // head
        self.norm = nn.GroupNorm(width // GROUP, width)
        self.qkv = nn.Conv2d(width, 3 * width, 1)
        self.out = zeroed(nn.Conv2d(width, width, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to the same shape."""
        B, C, H, W = x.shape
        qkv = self.qkv(self.norm(x)).permute(0, 2, 3, 1).reshape(B, H * W, 3, self.heads, -1)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # (B, heads, T, D) each
        weights = (q @ k.transpose(-1, -2) * q.size(-1) ** -0.5).softmax(-1)
        y = (weights @ v).transpose(1, 2).reshape(B, H, W, C).permute(0, 3, 1, 2)
        z: Tensor = x + self.out(y)
        return z


def channels_last(network: nn.Module) -> None:
    """Lay out kernels with channels last, which oneDNN's convolutions on CPUs prefer."""
    for p in network.parameters():
        if p.dim() == 4:
            p.data = p.data.contiguous(memory_format=torch.channels_last)


def zeroed(layer: Layer) -> Layer:
    """Return the layer with weights of zero, so that it adds nothing at first."""
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def save_denoiser(folder: str | Path, network: UNet, *, dtype: torch.dtype | None = None) -> Path:
    """Write `config.json` and `model.safetensors`; return the folder.

    `dtype` is that of the file, such as a half precision; None keeps the network's.
    """
    return save_network(folder, ARCHITECTURE, network.config, network, dtype=dtype)


def load_denoiser(name: str | Path) -> UNet:
    """Load the denoiser of a folder, or a shipped one such as `digits`, in float32.

    Raises `ModelError` for a folder that holds none, a damaged one, or another layout.
    """
    # The first denoisers had no mean in their config.json: the default of 0 is theirs.
    return load_network(denoiser_folder(name), ARCHITECTURE, UNetConfig, UNet)


def denoiser_folder(name: str | Path) -> Path:
    """Return the folder of a denoiser by its path or shipped name. Raises `ModelError`."""
    return network_folder(name, "A denoiser", "`ostinato train image`", shipped=SHIPPED)
