"""Episodes that a policy plays as well as it can, on seeds that it never trained on."""

from __future__ import annotations

import torch

from ostinato.reward.games.environments import Environments, Episode, Make
from ostinato.reward.games.policy import Policy

TOGETHER = 16  # episodes that are played side by side


@torch.no_grad()
def play(
    policy: Policy, make: Make, count: int, *, seed: int = 0, use: str = "valid"
) -> list[Episode]:
    """Return the first `count` episodes of new environments, by the likeliest actions.

    Each environment plays its share, so that short episodes are not preferred.
    """
    environments = Environments(make, min(count, TOGETHER), seed=seed, use=use)
    shares = [len(range(index, count, environments.count)) for index in range(environments.count)]
    found: list[list[Episode]] = [[] for _ in shares]
    while any(len(each) < share for each, share in zip(found, shares, strict=True)):
        outputs = policy.act(torch.from_numpy(environments.seen))
        actions = policy.actions.taken(policy.actions.likeliest(outputs))
        step = environments.step(actions.numpy())
        for index, episode in zip(step.last, step.episodes, strict=True):
            found[index].append(episode)
    environments.close()
    return [episode for each, share in zip(found, shares, strict=True) for episode in each[:share]]
