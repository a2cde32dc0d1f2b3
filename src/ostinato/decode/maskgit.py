"""Deciding masked tokens, the most confident first: the arithmetic of MaskGIT (Chang et al. 2022).

Pure functions over the positions of one row. Each step samples all masked tokens, keeps those that
the network is most confident of, and masks the rest again. Knows no network and no lanes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ostinato.decode.sampling import GREEDY_BELOW

MASKED = -1
"""What a row holds for a token that is not decided."""


class UnmaskStep(NamedTuple):
    """The row after a step, how many tokens it decided, and their mean probability (0: none)."""

    tokens: list[int]
    decided: int
    confidence: float

    @property
    def masked(self) -> int:
        """The number of tokens still masked."""
        return self.tokens.count(MASKED)


def unmask_step(
    tokens: Sequence[int],
    logits: Tensor,
    uniform: Tensor,
    *,
    unknown: int,
    step: int,
    steps: int,
    temperature: float,
    noise: float,
) -> UnmaskStep:
    """Take step 1 to `steps` of a row of T tokens (section 3.2).

    `logits` are (T, V), `uniform` random numbers (2, T) in [0, 1). `unknown` tokens were masked
    before the first step. `noise` is that of the first step; it falls to 0 at the last.
    """
    sampled, probs = draw_each(logits, temperature, uniform[0])
    masked = torch.tensor(tokens) == MASKED
    count = to_keep(unknown, int(masked.sum()), step, steps)
    kept = most_confident(probs, masked, count, noise * (1 - step / steps), uniform[1])
    after = list(tokens)
    for position in kept.tolist():
        after[position] = int(sampled[position])
    return UnmaskStep(after, count, float(probs[kept].mean()) if count else 0.0)


def to_keep(unknown: int, masked: int, step: int, steps: int) -> int:
    """Return how many of the `masked` tokens a step (1 to `steps`) decides: at least one.

    After it, the share cos(pi/2 step / steps) of all that were `unknown` is masked (section 3.2).
    """
    left = int(unknown * math.cos(math.pi / 2 * step / steps)) if step < steps else 0
    # At least one: an edit that masks tokens again may leave fewer than the schedule expects.
    return min(masked, max(1, masked - left))


def draw_each(logits: Tensor, temperature: float, uniform: Tensor) -> tuple[Tensor, Tensor]:
    """Sample a token at each position from logits (T, V), by inverse CDF with `uniform` (T,).

    Returns the tokens (T,) and their probabilities (T,) at the temperature. At temperature 0 these
    are the most likely tokens, with their probabilities at temperature 1.
    """
    if temperature < GREEDY_BELOW:
        probs = torch.softmax(logits, -1)
        best = logits.argmax(-1)
        return best, probs.gather(1, best[:, None])[:, 0]
    return pick_each(torch.softmax(logits / temperature, -1), uniform)


def pick_each(probs: Tensor, uniform: Tensor) -> tuple[Tensor, Tensor]:
    """Sample from probs (T, V), which need not add up to 1; return tokens, probabilities (T,)."""
    cumulative = torch.cumsum(probs.double(), -1)  # in float32 the sum of a large V drifts
    target = uniform[:, None] * cumulative[:, -1:]
    tokens = torch.searchsorted(cumulative, target, right=True).clamp_(max=probs.size(1) - 1)
    return tokens[:, 0], probs.gather(1, tokens)[:, 0] / cumulative[:, -1].float()


def most_confident(
    probs: Tensor, masked: Tensor, count: int, noise: float, uniform: Tensor
) -> Tensor:
    """Return the `count` positions, of those `masked` (T,), whose tokens are kept.

    Confidence is the log probability plus `noise` times Gumbel noise, made of `uniform` (T,). The
    noise varies the order from try to try.
    """
    gumbel = -(-uniform.clamp_min(1e-12).log()).log()
    confidence = probs.double().clamp_min(1e-30).log() + noise * gumbel
    # Stable: equal confidences must have the same order everywhere.
    order = torch.argsort(confidence.masked_fill(~masked, -math.inf), descending=True, stable=True)
    return order[:count]
