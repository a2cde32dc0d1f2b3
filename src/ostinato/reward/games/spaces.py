"""What a policy sees and does, of an environment's spaces. Knows no network."""

from __future__ import annotations

import importlib
import math
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np

from ostinato.arguments import reason, require, require_types
from ostinato.errors import InputError, MissingExtra

Array = np.ndarray[Any, Any]

FEWEST_PIXELS = 8  # a side of an image that a policy sees


def gymnasium() -> ModuleType:
    """Return the module `gymnasium`. Raises `MissingExtra` where it is not installed."""
    try:
        return importlib.import_module("gymnasium")
    except ImportError:
        raise MissingExtra("A game", "games") from None


def make_environment(game: str, **options: Any) -> Any:
    """Make an environment by its id. Raises `InputError` where there is none, or not all of it."""
    gym = gymnasium()
    if game.startswith("ostinato/"):
        from ostinato.reward.minigame import register_games

        register_games()
    try:
        return gym.make(game, **options)
    except Exception as error:  # of the registry, of a package that is missing, of its own code
        raise InputError(
            f"The environment {game} cannot be made: {reason(error).rstrip('.')}. Check its id, or "
            "install what it needs."
        ) from None


@dataclass(frozen=True, kw_only=True)
class GameSpaces:
    """What a policy sees and does, in numbers.

    seen: The shape of an observation: (F,) numbers, or (C, H, W) pixels.
    pixels: Whether it is an image of bytes.
    choices: The number of choices of each discrete action; empty for continuous actions.
    continuous: How many numbers a continuous action is.
    low, high: The bounds of each of them; empty where one has none.
    """

    seen: tuple[int, ...]
    pixels: bool = False
    choices: tuple[int, ...] = ()
    continuous: int = 0
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        for name in ("seen", "choices", "low", "high"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        require_types(self)
        one = bool(self.choices) != bool(self.continuous)
        require(one, "choices", "given, or continuous", self.choices)
        bounds = {len(self.low), len(self.high)}
        require(bounds in ({0}, {self.continuous}), "low", "as many as high and actions", self.low)

    @property
    def actions(self) -> int:
        """How many numbers an action is."""
        return len(self.choices) or self.continuous


class SpaceAdapter:
    """Turns an environment's observations into a policy's, and a policy's actions into its own.

    Raises `InputError` for spaces that no policy is made for.
    """

    def __init__(self, name: str, observations: Any, actions: Any) -> None:
        self._spaces = gymnasium().spaces
        self._observations, self._actions = observations, actions
        seen = self._seen(name)
        self.spaces = GameSpaces(seen=seen, pixels=self.pixels, **self._done(name))
        self.dtype = np.uint8 if self.pixels else np.float32

    # Observations -----------------------------------------------------------------------------

    def _seen(self, name: str) -> tuple[int, ...]:
        space = self._observations
        self.pixels, self._flat, self._last = False, True, False
        if not getattr(space, "is_np_flattenable", False):
            raise InputError(
                f"The observations of {name} must be of a fixed number of numbers, got the space "
                f"{space}. Wrap the environment in one that makes such observations."
            )
        if not isinstance(space, self._spaces.Box):
            return (self._spaces.flatdim(space),)  # Discrete becomes one number for each choice
        shape = tuple(space.shape)
        if space.dtype == np.uint8 and len(shape) in (2, 3):
            return self._seen_pixels(name, shape)
        return (math.prod(shape),)

    def _seen_pixels(self, name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
        self.pixels, self._flat = True, False
        self._last = len(shape) == 3 and shape[2] < shape[0]  # channels come last
        seen = (1, *shape) if len(shape) == 2 else shape
        seen = (shape[2], *shape[:2]) if self._last else seen
        if min(seen[1:]) < FEWEST_PIXELS:
            raise InputError(
                f"The images of {name} must be at least {FEWEST_PIXELS} pixels a side, got "
                f"{seen[1]} x {seen[2]}. Enlarge them, or show them as floating-point numbers."
            )
        return seen

    def observation(self, found: Any) -> Array:
        """Return an observation as the policy sees it. Raises `ValueError` where it does not fit.

        The message says what was expected, and what was found.
        """
        space = self._observations
        if isinstance(space, self._spaces.Box):
            shape = getattr(found, "shape", None)
            if shape != space.shape:
                got = type(found).__name__ if shape is None else f"the shape {tuple(shape)}"
                raise ValueError(f"an observation of the shape {space.shape}, got {got}")
            if self._last:
                found = found.transpose(2, 0, 1)
            seen: Array = found.reshape(self.spaces.seen)
            return seen
        try:
            flat: Array = self._spaces.flatten(space, found)
        except Exception as error:
            raise ValueError(f"an observation of the space {space}, got {found!r:.80}") from error
        return flat

    # Actions ----------------------------------------------------------------------------------

    def _done(self, name: str) -> dict[str, Any]:
        space, kinds = self._actions, self._spaces
        if isinstance(space, kinds.Discrete):
            return {"choices": (int(space.n),)}
        if isinstance(space, kinds.MultiDiscrete) and len(space.shape) == 1:
            return {"choices": tuple(map(int, space.nvec))}
        if isinstance(space, kinds.MultiBinary) and len(space.shape) == 1:
            return {"choices": (2,) * int(space.n)}
        if isinstance(space, kinds.Box) and np.issubdtype(space.dtype, np.floating):
            bounds = [each.astype(float).ravel() for each in (space.low, space.high)]
            known = {"continuous": int(bounds[0].size)}
            if not np.isfinite(bounds).all():
                return known
            return known | {"low": tuple(bounds[0].tolist()), "high": tuple(bounds[1].tolist())}
        raise InputError(
            f"The actions of {name} must be of the space Discrete, MultiDiscrete, MultiBinary or a "
            f"Box of floating-point numbers, got {space}. Wrap the environment in one that takes "
            "such actions."
        )

    def actions(self, chosen: Array) -> list[Any]:
        """Return the actions (N, A) of a policy as the environment takes them."""
        space, kinds = self._actions, self._spaces
        if isinstance(space, kinds.Discrete):
            start = int(space.start)
            numbers: list[Any] = chosen[:, 0].tolist()
            return [number + start for number in numbers] if start else numbers
        if isinstance(space, kinds.Box):
            return list(chosen.reshape(-1, *space.shape).astype(space.dtype))
        if isinstance(space, kinds.MultiDiscrete):
            chosen = chosen + space.start
        return list(chosen.astype(space.dtype))

    def taken(self, saved: Any) -> list[Any]:
        """Return the actions of a saved tensor (T, …), as `actions` returned them."""
        if isinstance(self._actions, self._spaces.Discrete):
            numbers: list[Any] = saved.tolist()
            return numbers
        return list(saved.numpy())

    def table(self) -> tuple[int, int]:
        """Return the numbers of states and actions. Raises `InputError` where they have none."""
        spaces = (self._observations, self._actions)
        if not all(isinstance(each, self._spaces.Discrete) for each in spaces):
            raise InputError(
                f"A table must be of an environment with Discrete observations and actions, got "
                f"{spaces[0]} and {spaces[1]}. Train a PolicyGradient on it."
            )
        return int(spaces[0].n), int(spaces[1].n)
