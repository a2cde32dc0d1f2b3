"""A bidirectional transformer over all codes of an image, as that of MaskGIT (Chang et al. 2022).

With `steps` it takes the noise level as an input, for multinomial diffusion. The words come before
the codes. Knows no sampling and no training.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ostinato.arguments import require_at_least, require_types
from ostinato.errors import InputError
from ostinato.models import load_network, save_network

ARCHITECTURE = "ostinato.CodeNetwork"


@dataclass(frozen=True, kw_only=True)
class CodeConfig:
    """The architecture: `codes` to choose from at each of `positions`.

    `words` is the size of the vocabulary of words, `prompt_tokens` the length of a prompt. `steps`
    is the number of noise levels; 0: trained with masks instead.
    """

    codes: int
    positions: int
    words: int
    prompt_tokens: int
    steps: int = 0
    layers: int = 4
    width: int = 128
    heads: int = 4

    def __post_init__(self) -> None:
        require_types(self)
        for name in ("codes", "positions", "words", "prompt_tokens", "layers", "width", "heads"):
            require_at_least(1, **{name: getattr(self, name)})
        require_at_least(0, steps=self.steps)
        if self.width % self.heads:
            raise InputError(
                f"width must be a multiple of heads, got {self.width} and {self.heads}."
            )


class CodeNetwork(nn.Module):
    """Logits (B, T, V) of codes (B, T), words (B, W) and step (B,). Code V is the mask."""

    def __init__(self, config: CodeConfig, *, seed: int = 0) -> None:
        super().__init__()
        self.config = config
        c, C = config, config.width
        with torch.random.fork_rng(devices=[]):  # the caller's random state stays as it is
            torch.manual_seed(seed)
            self.embed_codes = nn.Embedding(c.codes + 1, C)
            self.embed_words = nn.Embedding(c.words, C)
            self.embed_positions = nn.Embedding(c.prompt_tokens + c.positions, C)
            # One more than noise levels: networks trained with masks always get level 0.
            self.embed_steps = nn.Embedding(c.steps + 1, C)
            self.blocks = nn.ModuleList(_Block(C, c.heads) for _ in range(c.layers))
            self.norm = nn.LayerNorm(C)
            self.lm_head = nn.Linear(C, c.codes)
            for module in self.modules():
                if isinstance(module, nn.Embedding):
                    nn.init.normal_(module.weight, std=0.02)

    def forward(self, codes: Tensor, words: Tensor, step: Tensor) -> Tensor:
        """Return the logits (B, T, V) of every position."""
        x = torch.cat((self.embed_words(words), self.embed_codes(codes)), 1)  # (B, W + T, C)
        x = x + self.embed_positions.weight + self.embed_steps(step)[:, None]
        for block in self.blocks:
            x = block(x)
        logits: Tensor = self.lm_head(self.norm(x[:, self.config.prompt_tokens :]))
        return logits

    def save(self, folder: Path) -> None:
        """Write `config.json` and `model.safetensors`."""
        save_network(folder, ARCHITECTURE, self.config, self)

    @classmethod
    def load(cls, folder: Path) -> CodeNetwork:
        """Read what `save` wrote. Raises `ModelError` where it is missing or damaged."""
        return load_network(folder, ARCHITECTURE, CodeConfig, cls)


class _Block(nn.Module):
    """Self-attention over all positions, and a feed-forward layer, each within a residual."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.inner, self.outer = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, T, C) to the same shape."""
        B, T, C = x.shape
        qkv = self.qkv(self.norm1(x)).view(B, T, 3, self.heads, C // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # (B, H, T, D) each
        weights = (q @ k.transpose(-1, -2) * q.size(-1) ** -0.5).softmax(-1)
        x = x + self.out((weights @ v).transpose(1, 2).reshape(B, T, C))
        y: Tensor = x + self.outer(F.gelu(self.inner(self.norm2(x))))
        return y
