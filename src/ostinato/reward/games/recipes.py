"""Settings that are good for an environment, by its id or by its kind. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from ostinato.reward.games.config import PolicyConfig
from ostinato.reward.games.spaces import SpaceAdapter, make_environment


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Settings of a training, and the network they were found with.

    `solved` is the mean return of 100 episodes that counts as solved; None: nobody says.
    """

    training: PolicyConfig = field(default_factory=PolicyConfig)
    solved: float | None = None
    width: int = 64
    layers: int = 2
    normalize: bool = False


DISCRETE = Recipe(
    training=PolicyConfig(
        steps=1000,
        lr=1e-3,
        environments=8,
        rollout=128,
        epochs=8,
        minibatch=256,
        entropy=0.01,
        scale_rewards=True,
    ),
    normalize=True,
)
CONTINUOUS = Recipe(
    training=PolicyConfig(
        steps=1000,
        lr=1e-3,
        environments=8,
        rollout=128,
        epochs=10,
        minibatch=256,
        scale_rewards=True,
    ),
    normalize=True,
)
PIXELS = Recipe(
    training=PolicyConfig(
        steps=5000,
        lr=2.5e-4,
        environments=8,
        rollout=128,
        epochs=4,
        minibatch=256,
        clip=0.1,
        entropy=0.01,
        scale_rewards=True,
    ),
    width=512,
)
"""After Schulman et al. 2017, table 5."""

RECIPES = {
    "CartPole-v1": Recipe(
        training=PolicyConfig(
            steps=200,
            lr=3e-3,
            environments=16,
            rollout=32,
            epochs=6,
            minibatch=512,
            clip_schedule="linear",
            scale_rewards=True,
            valid_every=20,
        ),
        normalize=True,
    ),
    "LunarLander-v3": Recipe(
        training=PolicyConfig(
            steps=400,
            lr=5e-4,
            environments=16,
            rollout=128,
            epochs=8,
            minibatch=256,
            gamma=0.999,
            gae_lambda=0.98,
            entropy=0.01,
            scale_rewards=True,
        ),
        normalize=True,
    ),
    "ostinato/River-v0": Recipe(
        training=PolicyConfig(
            steps=400,
            lr=5e-4,
            environments=16,
            rollout=128,
            minibatch=256,
            gamma=0.97,
            entropy=0.005,
            scale_rewards=True,
        ),
    ),
    "Pendulum-v1": Recipe(
        training=PolicyConfig(
            steps=200,
            lr=2e-3,
            environments=8,
            rollout=128,
            epochs=10,
            minibatch=256,
            gamma=0.9,
            gae_lambda=0.95,
            scale_rewards=True,
        ),
        solved=-200.0,
    ),
}


def recipe_for(game: str) -> Recipe:
    """Return the settings for an environment, with what it takes to solve it.

    Raises `InputError` where it cannot be made, or has spaces that no policy is made for.
    """
    environment = make_environment(game)
    adapter = SpaceAdapter(game, environment.observation_space, environment.action_space)
    threshold: Any = getattr(environment.spec, "reward_threshold", None)
    environment.close()
    found = RECIPES.get(game)
    if found is None:
        kind = DISCRETE if adapter.spaces.choices else CONTINUOUS
        found = PIXELS if adapter.pixels else kind
    if found.solved is None and threshold is not None:
        found = replace(found, solved=float(threshold))
    return found
