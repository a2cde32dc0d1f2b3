"""Environments that are stepped in this process, one after the other, for a policy that sees all.

Knows no policy. Each reset has a seed of (seed, use, environment, episode), so an environment is
where it was after the same seed and the same actions: that is how a saved one comes back.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch

from ostinato.arguments import counted, reason, require_at_least
from ostinato.errors import EnvironmentFault
from ostinato.loop import check_seed, fold_in
from ostinato.reward.games.spaces import Array, SpaceAdapter

Make = Callable[[], Any]
"""Makes a `gymnasium.Env`, always the same."""


@runtime_checkable
class Restorable(Protocol):
    """An environment that can save its whole state, so that no actions need be repeated."""

    def state_dict(self) -> dict[str, object]:
        """Return all that a later step depends on: tensors, and values that JSON can hold."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what was saved."""
        ...


def episode_seed(seed: int, use: str, environment: int, episode: int) -> int:
    """Return the seed of an episode, in [0, 2**32).

    Those of "train" are even and all others odd: what a policy is evaluated on, it never trained
    on.
    """
    return fold_in(seed, use, environment, episode) >> 32 << 1 | (use != "train")


class Episode(NamedTuple):
    """An episode that has ended: the sum of its rewards, and its number of steps."""

    total: float
    length: int


class Stepped(NamedTuple):
    """What one step of N environments gave: `seen` is (N, *shape), the others are (N,).

    `last` holds, by environment, the last observation of each episode that ended: `seen` is then
    the first one of the next.
    """

    seen: Array
    rewards: Array
    terminated: Array
    truncated: Array
    last: dict[int, Array]
    episodes: list[Episode]


@dataclass
class _Place:
    """Where an environment is: the episode's number, the actions in it, its rewards so far."""

    episode: int = 0
    actions: list[Any] = field(default_factory=list)
    total: float = 0.0


class Environments:
    """`count` environments that `make` makes, reset at once; `name` is how messages call them.

    An episode ends in its last step: the next one has begun when `step` returns.
    """

    def __init__(
        self, make: Make, count: int = 8, *, seed: int = 0, use: str = "train", name: str = ""
    ) -> None:
        require_at_least(1, count=count)
        self.make, self.count, self.seed, self.use = make, count, check_seed(seed), use
        self._environments = [make() for _ in range(count)]
        first = self._environments[0]
        spec = getattr(first, "spec", None)
        self.name = name or (spec.id if spec is not None else type(first).__name__)
        self.adapter = SpaceAdapter(self.name, first.observation_space, first.action_space)
        self.spaces = self.adapter.spaces
        self.restarted = 0  # episodes that could not be brought back, since the last step
        self._places = [_Place() for _ in range(count)]
        self.seen = np.zeros((count, *self.spaces.seen), self.adapter.dtype)
        for index in range(count):
            self.seen[index] = self._begin(index)

    def step(self, chosen: Array) -> Stepped:
        """Take an action (A,) of each row of `chosen` (N, A). Raises `EnvironmentFault`."""
        N, seen = self.count, np.empty_like(self.seen)
        rewards = np.empty(N, np.float32)
        terminated, truncated = np.zeros(N, bool), np.zeros(N, bool)
        last: dict[int, Array] = {}
        episodes: list[Episode] = []
        for index, action in enumerate(self.adapter.actions(chosen)):
            place = self._places[index]
            place.actions.append(action)
            found, reward, ended, cut = self._step(index, action)
            rewards[index] = reward
            place.total += reward
            if ended or cut:
                terminated[index], truncated[index] = ended, cut and not ended
                self._require_finite(found[None], index)
                last[index] = found
                episodes.append(Episode(place.total, len(place.actions)))
                self._places[index] = _Place(place.episode + 1)
                seen[index] = self._begin(index)
            else:
                seen[index] = found
        self._require_finite(seen)
        self.seen, self.restarted = seen, 0
        return Stepped(seen, rewards, terminated, truncated, last, episodes)

    @property
    def metadata(self) -> Mapping[str, Any]:
        """What the environments say of themselves, such as `render_fps`."""
        found: Mapping[str, Any] = self._environments[0].metadata
        return found

    def render(self, index: int = 0) -> Any:
        """Return the picture that an environment makes of itself."""
        return self._environments[index].render()

    def close(self) -> None:
        """Close all environments."""
        for environment in self._environments:
            environment.close()

    # A part of a process ----------------------------------------------------------------------

    def state_dict(self) -> dict[str, object]:
        """Return where each environment is: the actions of its episode, or its own state."""
        return {
            "places": [
                {
                    "episode": place.episode,
                    "total": place.total,
                    "actions": _stacked(place.actions),
                    "own": environment.state_dict() if _restorable(environment) else None,
                }
                for place, environment in zip(self._places, self._environments, strict=True)
            ],
            "seen": torch.from_numpy(self.seen.copy()),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Bring each environment back: by its own state, or from its seed and its actions.

        Where an episode cannot be brought back, the next one begins, and a warning says so. Raises
        `EnvironmentFault` for a state of another number of environments.
        """
        if len(state["places"]) != self.count:
            raise EnvironmentFault(
                f"The saved state must be of {counted(self.count, 'environments')}, got "
                f"{len(state['places'])}. Give as many, or start another run."
            )
        seen = state["seen"].numpy()
        self.seen = seen.copy()
        self.restarted = sum(
            not self._brought_back(index, saved, seen[index])
            for index, saved in enumerate(state["places"])
        )
        if self.restarted:
            warnings.warn(
                f"{self.restarted} of {self.count} episodes in progress were restarted: "
                f"{self.name} is not the same after the same seed and actions. What follows is not "
                "what it would have been.",
                stacklevel=2,
            )

    def _brought_back(self, index: int, saved: dict[str, Any], seen: Array) -> bool:
        """Bring an environment back; where that fails, begin its next episode and return False."""
        environment, actions = self._environments[index], self.adapter.taken(saved["actions"])
        self._places[index] = _Place(saved["episode"], actions, saved["total"])
        first = self._begin(index)  # a restorable one, too: its first step would want a reset
        if saved["own"] is not None:
            environment.load_state_dict(saved["own"])
            return True
        found = self._replayed(index, first, actions)
        if found is not None and np.array_equal(found, seen):
            return True
        self._places[index] = _Place(saved["episode"] + 1)
        self.seen[index] = self._begin(index)
        return False

    def _replayed(self, index: int, seen: Array, actions: Sequence[Any]) -> Array | None:
        """Return what is seen after the actions of an episode; None where one is not taken."""
        try:
            for action in actions:
                seen = self._step(index, action)[0]
        except EnvironmentFault:
            return None
        return seen

    # One environment --------------------------------------------------------------------------

    def _seed_of(self, index: int) -> int:
        return episode_seed(self.seed, self.use, index, self._places[index].episode)

    def _begin(self, index: int) -> Array:
        """Reset an environment, for the episode that its place says; return what is seen."""
        try:
            found, _ = self._environments[index].reset(seed=self._seed_of(index))
        except Exception as error:
            raise self._fault(index, f"let itself be reset, got {_raised(error)}") from error
        seen = self._observed(index, found)
        self._require_finite(seen[None], index)
        return seen

    def _step(self, index: int, action: Any) -> tuple[Array, float, bool, bool]:
        try:
            found, reward, terminated, truncated, _ = self._environments[index].step(action)
        except Exception as error:
            raise self._fault(index, f"take a step, got {_raised(error)}") from error
        try:
            number = float(reward)
        except (TypeError, ValueError):
            number = math.nan
        if not math.isfinite(number):
            raise self._fault(index, f"return a finite number as reward, got {reward!r:.80}")
        return self._observed(index, found), number, bool(terminated), bool(truncated)

    def _observed(self, index: int, found: Any) -> Array:
        try:
            return self.adapter.observation(found)
        except ValueError as error:
            raise self._fault(index, f"return {error}") from None

    def _require_finite(self, seen: Array, first: int = 0) -> None:
        if self.spaces.pixels or np.isfinite(seen).all():
            return
        index = int(np.argmin(np.isfinite(seen).reshape(len(seen), -1).all(1)))
        got = seen[index].ravel()[:8].tolist()
        raise self._fault(first + index, f"return finite observations, got {got}")

    def _fault(self, index: int, expected: str) -> EnvironmentFault:
        place = self._places[index]
        action = f", after the action {place.actions[-1]!r:.60}" if place.actions else ""
        return EnvironmentFault(
            f"The environment {self.name} must {expected} (environment {index}, episode "
            f"{place.episode} of seed {self._seed_of(index)}, step {len(place.actions)}{action}). "
            "Mend it and resume: the last checkpoint is as it was."
        )


def _restorable(environment: object) -> bool:
    return isinstance(environment, Restorable)


def _stacked(actions: Sequence[Any]) -> torch.Tensor:
    return torch.from_numpy(np.array(actions))


def _raised(error: Exception) -> str:
    return f"{type(error).__name__}: {reason(error)}"
