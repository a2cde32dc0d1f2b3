"""Generalized advantage estimation, and discounted returns. Knows no network."""

from __future__ import annotations

import numpy as np

from ostinato.reward.games.spaces import Array


def advantages_of(
    rewards: Array,
    values: Array,
    next_values: Array,
    terminated: Array,
    truncated: Array,
    *,
    gamma: float,
    lam: float,
) -> Array:
    """Return the advantages (T, N) of Schulman et al., "High-Dimensional Continuous Control Using
    Generalized Advantage Estimation" (2016), equation 16.

    All are (T, N). `next_values` are of what followed each step: where an episode was truncated, of
    its last observation, as it could have gone on. Nothing follows a terminated one.
    """
    deltas = rewards + gamma * next_values * ~terminated - values
    carried = gamma * lam * ~(terminated | truncated)
    advantages = np.empty_like(deltas)
    following = np.zeros_like(deltas[0])
    for t in range(len(deltas) - 1, -1, -1):
        following = advantages[t] = deltas[t] + carried[t] * following
    return advantages


def discounted(rewards: Array, done: Array, before: Array, gamma: float) -> Array:
    """Return the rewards (T, N) of each episode so far, older ones discounted.

    `before` (N,) are those of the step before. Their spread is the scale of the rewards (Engstrom
    et al., "Implementation Matters in Deep Policy Gradients", 2020).
    """
    totals = np.empty_like(rewards)
    for t, reward in enumerate(rewards):
        before = totals[t] = before * gamma + reward
        before = before * ~done[t]
    return totals
