"""A policy at play, to be watched: one step of the environment after the other, with pictures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from ostinato.arguments import counted, require_at_least
from ostinato.errors import EditError, EnvironmentFault
from ostinato.journal import EditKind
from ostinato.loop import Edits, Exhausted, Report
from ostinato.reward.games.environments import Environments, Make
from ostinato.reward.games.policy import Policy, require_fitting
from ostinato.train import Parts, Values


class Playing:
    """Play `episodes` by the likeliest actions, on seeds that the policy never trained on.

    Reports `reward`; in the last step of an episode its `return` and `length`; and with `shown`
    the `frame` (C, H, W), uint8, in which the action was chosen: `make` must make environments
    with `render_mode="rgb_array"`.
    """

    known_edits: ClassVar[Mapping[str, EditKind]] = {}

    def __init__(
        self, policy: Policy, make: Make, episodes: int = 3, *, seed: int = 0, shown: bool = False
    ) -> None:
        require_at_least(1, episodes=episodes)
        self.environments = Environments(make, 1, seed=seed, use="play", name=policy.shape.game)
        require_fitting(policy, self.environments.spaces, self.environments.name)
        self.policy, self.episodes, self.shown = policy, episodes, shown
        self._count = Values(played=0)
        self._parts = Parts("Playing", environments=self.environments, count=self._count)
        self.state_dict, self.load_state_dict = self._parts.state_dict, self._parts.load_state_dict

    @torch.no_grad()
    def step(self) -> Report:
        """Take one action. Raises `Exhausted` after the last episode."""
        if self._count.played >= self.episodes:
            raise Exhausted("All episodes have been played.")
        report: dict[str, object] = {"frame": self._frame()} if self.shown else {}
        outputs = self.policy.act(torch.from_numpy(self.environments.seen))
        actions = self.policy.actions.taken(self.policy.actions.likeliest(outputs))
        step = self.environments.step(actions.numpy())
        report["reward"] = float(step.rewards[0])
        for episode in step.episodes:
            self._count.played += 1
            report |= {"return": episode.total, "length": episode.length}
        if self._count.played >= self.episodes:
            report["ended"] = f"It has played {counted(self.episodes, 'episodes')}."
        return report

    def change(self, edits: Edits) -> None:
        """Refuse any edit."""
        if edits:
            raise EditError(f"A policy at play takes no edits, got {sorted(edits)}.")

    def _frame(self) -> Tensor:
        picture: Any = self.environments.render()
        pixels = np.asarray(picture)
        if pixels.dtype != np.uint8 or pixels.ndim != 3:
            raise EnvironmentFault(
                f"The environment {self.environments.name} must render bytes (H, W, 3), got "
                f"{type(picture).__name__} of the shape {pixels.shape}. Give one that renders "
                "rgb_array, or leave --gif out."
            )
        return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))
