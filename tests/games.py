"""Small environments: each shows one thing that a policy must cope with."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import Env, spaces

from ostinato.reward.games import (
    Environments,
    PolicyConfig,
    PolicyGradient,
    QConfig,
    QLearning,
    policy_for,
)


class Corridor(Env[Any, Any]):  # type: ignore[misc, unused-ignore]
    """Walk to the right end of `length` places; the start is random. Never takes over 20 steps."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012, as Env's

    def __init__(self, length: int = 6, render_mode: str | None = None) -> None:
        self.length, self.render_mode = length, render_mode
        self.observation_space = spaces.Discrete(length)
        self.action_space = spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.place, self.taken = int(self.np_random.integers(self.length - 1)), 0
        return self.seen(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.place = min(max(self.place + (1 if action else -1), 0), self.length - 1)
        self.taken += 1
        there = self.place == self.length - 1
        return self.seen(), 1.0 if there else -0.1, there, self.taken >= 20, {}

    def seen(self) -> Any:
        return self.place

    def render(self) -> Any:
        picture = np.zeros((8, 8 * self.length, 3), np.uint8)
        picture[:, 8 * self.place : 8 * self.place + 8] = 255
        return picture


class PixelCorridor(Corridor):
    """The same, seen as an image whose channels come last."""

    def __init__(self) -> None:
        super().__init__(length=4)
        self.observation_space = spaces.Box(0, 255, (8, 32, 3), np.uint8)

    def seen(self) -> Any:
        return self.render()


class Target(Env[Any, Any]):  # type: ignore[misc, unused-ignore]
    """Say the number that is shown, within bounds of its own: a continuous action."""

    def __init__(self) -> None:
        self.observation_space = spaces.Box(-1, 1, (1,), np.float32)
        self.action_space = spaces.Box(0, 10, (1,), np.float32)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.taken = 0
        return self.seen(), {}

    def seen(self) -> Any:
        self.shown = self.np_random.uniform(-1, 1, 1).astype(np.float32)
        return self.shown

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        assert self.action_space.contains(action), action
        reward = -abs(float(action[0]) - 5 - 4 * float(self.shown[0]))
        self.taken += 1
        return self.seen(), reward, False, self.taken >= 5, {}


class Switches(Target):
    """Two switches of three positions, at once."""

    def __init__(self) -> None:
        super().__init__()
        self.action_space: Any = spaces.MultiDiscrete([3, 3])

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        assert self.action_space.contains(action), action
        self.taken += 1
        return self.seen(), float(action.sum()), False, self.taken >= 5, {}


class Drifting(Corridor):
    """Never the same after the same seed: nothing can bring it back."""

    games = 0

    def __init__(self) -> None:
        super().__init__()
        self.observation_space: Any = spaces.Box(-np.inf, np.inf, (1,), np.float32)

    def seen(self) -> Any:
        Drifting.games += 1
        return np.array([Drifting.games], np.float32)


class Remembering(Drifting):
    """The same, but it can save its own state."""

    def state_dict(self) -> dict[str, object]:
        return {"place": self.place, "taken": self.taken}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.place, self.taken = state["place"], state["taken"]


def small(make: Any, **changed: Any) -> PolicyGradient:
    """Return a small training in an environment."""
    settings = {"environments": 3, "rollout": 8, "minibatch": 16, "epochs": 2, "episodes": 2}
    config = PolicyConfig(**{**settings, "valid_every": 4, "steps": 50, "lr": 3e-3, **changed})
    environments = Environments(make, config.environments, seed=config.seed)
    policy = policy_for(environments, width=16, normalize=not environments.spaces.pixels)
    return PolicyGradient(policy, environments, config)


def table(seed: int = 0) -> QLearning:
    """Return a table that learns the corridor."""
    return QLearning(Environments(Corridor, 1, seed=seed), QConfig(exploration=50, seed=seed))
