"""Deciding all tokens at once, the surest first: the arithmetic of MaskGIT (Chang et al. 2022).

Pure functions over the places of one sequence. In each step all hidden tokens are drawn, those that
the network is surest of are kept, and the rest is hidden again. Knows no network and no lanes.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def to_keep(unknown: int, hidden: int, step: int, steps: int) -> int:
    """Return how many of the `hidden` tokens a step (1 to `steps`) decides: at least one.

    After it, the share cos(pi/2 step / steps) of all that were `unknown` is hidden (section 3.2).
    """
    left = int(unknown * math.cos(math.pi / 2 * step / steps)) if step < steps else 0
    return min(hidden, max(1, hidden - left))


def draw_each(logits: Tensor, temperature: float, uniform: Tensor) -> tuple[Tensor, Tensor]:
    """Draw a token at each place from logits (T, V), by inverse CDF with `uniform` (T,).

    Returns the tokens (T,) and their probabilities (T,), those of the temperature; at temperature 0
    the likeliest, with their plain probabilities.
    """
    if temperature == 0:
        probs = torch.softmax(logits, -1)
        best = logits.argmax(-1)
        return best, probs.gather(1, best[:, None])[:, 0]
    return pick_each(torch.softmax(logits / temperature, -1), uniform)


def pick_each(probs: Tensor, uniform: Tensor) -> tuple[Tensor, Tensor]:
    """Draw from probs (T, V), which need not add up to 1; return tokens and probabilities (T,)."""
    shares = torch.cumsum(probs.double(), -1)
    target = uniform[:, None] * shares[:, -1:]
    tokens = torch.searchsorted(shares, target, right=True).clamp_(max=probs.size(1) - 1)
    return tokens[:, 0], probs.gather(1, tokens)[:, 0] / shares[:, -1].float()


def surest(probs: Tensor, hidden: Tensor, count: int, noise: float, uniform: Tensor) -> Tensor:
    """Return the `count` places, of those that are `hidden` (T,), whose tokens are kept.

    The surest by log probability plus `noise` times Gumbel noise made of `uniform` (T,); the noise
    keeps the order from being the same at every try.
    """
    gumbel = -(-uniform.clamp_min(1e-12).log()).log()
    confidence = probs.double().clamp_min(1e-30).log() + noise * gumbel
    order = torch.argsort(confidence.masked_fill(~hidden, -math.inf), descending=True, stable=True)
    return order[:count]
