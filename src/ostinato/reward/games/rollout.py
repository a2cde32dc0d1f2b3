"""A rollout: what a policy saw and did in all environments, and how much better than expected."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from ostinato.loop import fold_in
from ostinato.reward.games.advantages import advantages_of, discounted
from ostinato.reward.games.config import PolicyConfig
from ostinato.reward.games.environments import Environments, Episode, Stepped
from ostinato.reward.games.policy import Policy
from ostinato.train import Values

CHUNK = 1024  # observations that are judged at once


@dataclass(frozen=True, kw_only=True)
class Rollout:
    """B = T * N steps: `seen` is (B, *shape), `actions` (B, A), all others (B,).

    `logprobs` are those of the actions when they were drawn; `returns` are what the values should
    have been. `episodes` are those that ended.
    """

    seen: Tensor
    actions: Tensor
    logprobs: Tensor
    advantages: Tensor
    returns: Tensor
    episodes: tuple[Episode, ...] = ()
    explained_variance: float = 0.0

    def minibatches(self, size: int, draws: torch.Generator) -> Iterator[Rollout]:
        """Yield all of its steps in parts of a size, in random order; a single part as it is."""
        if size >= len(self.actions):
            yield self
            return
        names = ("seen", "actions", "logprobs", "advantages", "returns")
        for chosen in torch.split(torch.randperm(len(self.actions), generator=draws), size):
            yield replace(self, **{name: getattr(self, name)[chosen] for name in names})


@torch.no_grad()
def collect(
    policy: Policy, environments: Environments, config: PolicyConfig, number: int, scale: Values
) -> Rollout:
    """Play `config.rollout` steps in each environment by drawn actions.

    `number` is that of the rollout, which decides the draws. `scale.returns` (N,) are the
    discounted rewards of the episodes so far. The moments of observations and rewards stay as they
    are while the rollout is played, and take it in afterwards.
    """
    T, N = config.rollout, environments.count
    draws = torch.Generator().manual_seed(fold_in(config.seed, "actions", number))
    noise = policy.actions.noise(T, N, draws=draws)
    seen, chosen, steps = [torch.from_numpy(environments.seen)], [], []
    for t in range(T):
        actions = policy.actions.draw(policy.act(seen[t]), noise[t])
        chosen.append(actions)
        step = environments.step(policy.actions.taken(actions).numpy())
        steps.append(step)
        seen.append(torch.from_numpy(step.seen))
    return _judged(policy, config, torch.stack(seen), torch.stack(chosen), steps, scale)


def _judged(
    policy: Policy,
    config: PolicyConfig,
    seen: Tensor,
    actions: Tensor,
    steps: list[Stepped],
    scale: Values,
) -> Rollout:
    """Return a rollout of what was seen (T + 1, N, …) and done (T, N, A), with its advantages."""
    T, N = actions.shape[:2]
    values = _in_chunks(policy, seen.flatten(0, 1)).view(T + 1, N).numpy()
    next_values = values[1:].copy()
    ends = [(t, index, last) for t, step in enumerate(steps) for index, last in step.last.items()]
    if ends:
        found = _in_chunks(policy, torch.from_numpy(np.stack([last for *_, last in ends])))
        for (t, index, _), value in zip(ends, found.tolist(), strict=True):
            next_values[t, index] = value
    rewards, terminated, truncated = (
        np.stack([getattr(step, name) for step in steps])
        for name in ("rewards", "terminated", "truncated")
    )
    if config.scale_rewards:
        rewards = _scaled(policy, config, rewards, terminated | truncated, scale)
    advantages = advantages_of(
        rewards,
        values[:-1],
        next_values,
        terminated,
        truncated,
        gamma=config.gamma,
        lam=config.gae_lambda,
    )
    returns = advantages + values[:-1]
    seen, actions = seen[:-1].flatten(0, 1), actions.flatten(0, 1)
    logprobs = torch.cat(
        [
            policy.actions.logprob_and_entropy(policy.act(each), done)[0]
            for each, done in zip(
                torch.split(seen, CHUNK), torch.split(actions, CHUNK), strict=True
            )
        ]
    )
    if policy.shape.normalize and not policy.spaces.pixels:
        policy.seen_moments.update(seen)
    spread = float(returns.var())
    return Rollout(
        seen=seen,
        actions=actions,
        logprobs=logprobs,
        advantages=torch.from_numpy(advantages).flatten(),
        returns=torch.from_numpy(returns).flatten(),
        episodes=tuple(episode for step in steps for episode in step.episodes),
        explained_variance=1 - float(advantages.var()) / spread if spread > 0 else 0.0,
    )


def _in_chunks(policy: Policy, seen: Tensor) -> Tensor:
    """Return the values (B,) of observations."""
    return torch.cat([policy.value(each) for each in torch.split(seen, CHUNK)])


def _scaled(
    policy: Policy, config: PolicyConfig, rewards: np.ndarray, done: np.ndarray, scale: Values
) -> np.ndarray:
    """Return rewards over the spread of the discounted returns, this rollout's included."""
    totals = discounted(rewards, done, scale.returns.numpy(), config.gamma)
    scale.returns = torch.from_numpy(totals[-1] * ~done[-1])
    policy.return_moments.update(torch.from_numpy(totals).flatten())
    scaled: np.ndarray = policy.return_moments.scaled(torch.from_numpy(rewards)).numpy()
    return scaled
