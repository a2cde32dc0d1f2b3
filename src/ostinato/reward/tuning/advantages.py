"""Advantages of a group's texts, and how their losses are averaged: one function a paper.

Knows no network: rewards in, numbers out.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ostinato.reward.tuning.config import GroupConfig, Method

EPSILON = 1e-4  # beside the deviation of rewards


def advantages(method: Method, rewards: Tensor) -> Tensor:
    """Return the advantage of each text (G,) of a group by its reward (G,)."""
    match method:
        case "grpo":
            return grpo(rewards)
        case "dr-grpo":
            return rewards - rewards.mean()
        case "rloo":
            return rloo(rewards)
        case "expert":
            return best_of_group(rewards)


def grpo(rewards: Tensor) -> Tensor:
    """Standard scores: Shao et al., "DeepSeekMath" (2024), section 4.1.2.

    Without the division it is "Dr. GRPO" (Liu et al., "Understanding R1-Zero-Like Training", 2025,
    section 3.1): dividing weighs prompts more whose texts are nearly all good or all bad.
    """
    return (rewards - rewards.mean()) / (rewards.std() + EPSILON)


def rloo(rewards: Tensor) -> Tensor:
    """Reward less the mean of the others: Ahmadian et al., "Back to Basics" (2024), equation 9."""
    others = (rewards.sum() - rewards) / (len(rewards) - 1)
    return rewards - others


def best_of_group(rewards: Tensor) -> Tensor:
    """The same for the best texts, 0 for all others, with the mean 1.

    Anthony et al., "Thinking Fast and Slow with Deep Learning and Tree Search" (2017), with the
    group's best in place of a search; as ReST (Gulcehre et al. 2023) does with a threshold.
    """
    best = (rewards == rewards.max()).float()
    return best / best.mean()


def token_weights(method: Method, lengths: Sequence[int], limit: int) -> list[float]:
    """Return the weight of each token of a group's texts in the group's loss, by text.

    GRPO takes the mean of each text's tokens, then of the texts; so does expert iteration. Dr. GRPO
    divides by a constant, the token `limit`, so that long bad texts do not count less. RLOO takes
    the probability of a whole text, the sum over its tokens.
    """
    G = len(lengths)
    match method:
        case "grpo" | "expert":
            return [1 / (G * length) for length in lengths]
        case "dr-grpo":
            return [1 / (G * limit)] * G
        case "rloo":
            return [1 / G] * G


def surrogate(
    logprobs: Tensor, old: Tensor, advantages: Tensor, config: GroupConfig
) -> tuple[Tensor, Tensor]:
    """Return what is maximized at each token (N,), and whether it was clipped (N,).

    The clipped ratio of Schulman et al., "Proximal Policy Optimization" (2017), equation 7, with an
    upper bound of its own as in DAPO (Yu et al. 2025, equation 8).
    """
    if config.method == "expert":
        return logprobs * advantages, torch.zeros_like(logprobs, dtype=torch.bool)
    ratio = (logprobs - old).exp()
    high = config.clip_range if config.clip_range_high is None else config.clip_range_high
    free, bound = ratio * advantages, ratio.clamp(1 - config.clip_range, 1 + high) * advantages
    return torch.minimum(free, bound), bound < free


def kl_to(logprobs: Tensor, reference: Tensor) -> Tensor:
    """Return an estimate of KL(policy || reference) at each token (N,): never negative, unbiased.

    Schulman, "Approximating KL Divergence" (2020), the estimator k3.
    """
    difference = reference - logprobs
    return difference.exp() - difference - 1


def soft_limit(length: int, soft: int, limit: int) -> float:
    """Return what a text's length takes from its reward: 0 up to `soft` tokens, 1 at the limit.

    A `soft` of 0 takes nothing.
    Yu et al., "DAPO" (2025), equation 13.
    """
    if not soft or length <= soft:
        return 0.0
    return min(1.0, (length - soft) / max(1, limit - soft))
