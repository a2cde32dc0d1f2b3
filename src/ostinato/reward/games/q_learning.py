"""Q-learning in a table: for games of few states, such as FrozenLake and Taxi."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ostinato.arguments import require, require_above, require_at_least, require_types
from ostinato.errors import EditError, InputError
from ostinato.loop import Edits, Report, check_seed, uniform
from ostinato.reward.games.environments import Environments
from ostinato.train import Parts, Values


@dataclass(frozen=True, kw_only=True)
class QConfig:
    """How a table learns: `lr` is how far a value moves to what was found.

    The share of random actions falls from 1 to `epsilon` over `exploration` episodes.
    """

    lr: float = 0.1
    gamma: float = 0.99
    epsilon: float = 0.05
    exploration: int = 1000
    seed: int = 0

    def __post_init__(self) -> None:
        require_types(self)
        require_above(0, lr=self.lr)
        require_at_least(1, exploration=self.exploration)
        for name in ("lr", "gamma", "epsilon"):
            value = getattr(self, name)
            require(0 <= value <= 1, name, "in [0, 1]", value)
        check_seed(self.seed)


class QLearning:
    """Learn what each action is worth in each state (Watkins and Dayan, "Q-learning", 1992).

    A step is an episode. Reports its `return` and `length`, and `epsilon`, the share of random
    actions. `environments` is a single one, whose observations and actions are `Discrete`.
    """

    def __init__(self, environments: Environments, config: QConfig | None = None) -> None:
        self.config, self.environments = config or QConfig(), environments
        states, actions = environments.adapter.table()
        if environments.count > 1:
            raise InputError(f"environments must be a single one, got {environments.count}.")
        self._values = Values(Q=torch.zeros(states, actions, dtype=torch.float64), episodes=0)
        self._parts = Parts("QLearning", values=self._values, environments=environments)

    @property
    def Q(self) -> np.ndarray[Any, Any]:
        """The table (states, actions): what the rest of an episode is worth."""
        table: np.ndarray[Any, Any] = self._values.Q.numpy()
        return table

    def step(self) -> Report:
        """Play an episode, and learn from each of its actions."""
        Q, c, number = self.Q, self.config, self._values.episodes
        epsilon = max(c.epsilon, 1 - number / c.exploration)
        position = 0
        while True:
            s = int(self.environments.seen[0].argmax())  # one number for each state
            a = int(Q[s].argmax())
            chance = uniform(c.seed, "action", number, 0, position)
            if chance < epsilon:
                a = int(chance / epsilon * Q.shape[1])
            step = self.environments.step(np.array([[a]]))
            s_next = int(step.last.get(0, step.seen[0]).argmax())
            following = 0.0 if step.terminated[0] else Q[s_next].max()
            Q[s, a] += c.lr * (step.rewards[0] + c.gamma * following - Q[s, a])
            position += 1
            for episode in step.episodes:
                self._values.episodes += 1
                return {"return": episode.total, "length": episode.length, "epsilon": epsilon}

    def state_dict(self) -> dict[str, object]:
        """Return the table, and where the environment is."""
        return self._parts.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Load a saved state."""
        self._parts.load_state_dict(state)
        self._values.Q = self._values.Q.clone()

    def change(self, edits: Edits) -> None:
        """Refuse any edit."""
        if edits:
            raise EditError(f"A table takes no edits, got {sorted(edits)}.")
