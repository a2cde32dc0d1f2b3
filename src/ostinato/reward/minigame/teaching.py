"""Teaching by thumbs up and down: TAMER over a policy that plays already.

Knox and Stone, "Interactively Shaping Agents via Human Reinforcement: The TAMER Framework" (2009):
a model H(s, a) of what the person thinks of a move is fitted to the presses, each with the credit
of the moments before it. Action biasing (Knox and Stone, 2010) adds H to the policy's logits. H is
linear in `Features`, and fitted in closed form, so that one press has its effect at once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from ostinato.arguments import require_above
from ostinato.errors import EditError
from ostinato.journal import EditKind
from ostinato.loop import Edits, Report, fold_in, uniform
from ostinato.reward.minigame.environment import HIT, River
from ostinato.reward.minigame.features import LIKES, Features, moves_of

Weights = NDArray[np.float64]
"""What a person is taken to like, by `Features`."""
Logits = Callable[[NDArray[np.float32]], NDArray[np.float64]]
"""A policy: from the symbolic view (219,) to the logits (3,) of its actions."""

HELD = 1.0
"""How strongly H is held at 0: as if so many presses had said that a feature does not matter."""
DISLIKED, HELD_DISLIKED = {"hit": -2.0, "blocked": -2.0}, 20.0
"""What everybody is taken to dislike, and how strongly that is held: who says that turning is bad
does not mean that a rock is good."""
STRENGTH = 14.0
"""What H is multiplied with where it is added to the logits."""
REACTION = 2.0
"""Seconds before a press that get credit."""


def credit(pace: float) -> NDArray[np.float64]:
    """Return the share of a press that each step before it gets, the last one first; they sum to 1.

    A person's delay is a gamma distribution of mean 0.56 s (as in Knox and Stone, 2009). `pace` is
    in steps per second.
    """
    ages = (np.arange(max(1, math.ceil(REACTION * pace))) + 0.5) / pace
    shares: NDArray[np.float64] = ages * np.exp(-ages / 0.28)
    shares /= shares.sum()
    return shares


class Teaching:
    """A policy plays the mini-game, one move a step, and learns from presses while it plays.

    A press is an edit: `press` is 1 for a thumb up, -1 for a thumb down. It is recorded before it
    is used, as every edit is.

    Reports, of the move: `row`, `column`, `action`, `reward`, `pearl`, `lily` and `hit` (0 or 1),
    `liking` (H of the move), `presses` (how many came just before it); at the end of a game also
    `return`. `pace` is how many steps a person sees a second.
    """

    known_edits: ClassVar[Mapping[str, EditKind]] = {"press": "number"}

    def __init__(
        self, policy: Logits, *, seed: int = 0, pace: float = 6.0, strength: float = STRENGTH
    ) -> None:
        require_above(0, pace=pace, strength=strength)
        self.policy, self.seed, self.strength = policy, seed, strength
        self.game = River()
        self.weights: Weights = untaught()
        self.steps = self.games = self.presses = self.since_press = 0
        self._credit = credit(pace)
        held = [HELD_DISLIKED if name in DISLIKED else HELD for name in Features._fields]
        self._information = np.diag(held)
        self._evidence = self._information @ self.weights
        self._recent: list[list[float]] = []  # features of the last moves, the last one first
        self._waiting = 0  # presses since the last step
        self._total, self._over = 0.0, True

    # The process ------------------------------------------------------------------------------

    def step(self) -> Report:
        """Make a move; begin another game first where one is over."""
        if self._over:
            self.game.reset(seed=fold_in(self.seed, "game", self.games))
            self.games, self._total = self.games + 1, 0.0
        moves = moves_of(self.game)
        logits = self.policy(self.game.symbols()) + self.strength * (moves @ self.weights)
        action = drawn(logits, uniform(self.seed, "move", 0, 0, self.steps))
        _, reward, lost, ended, _ = self.game.step(action)
        self._over, self._total = lost or ended, self._total + float(reward)
        made = Features(*moves[action].tolist())
        report = self._report(made, action, float(reward))
        self._recent = [list(made), *self._recent][: len(self._credit)]
        self.steps, self._waiting = self.steps + 1, 0
        self.since_press += 1
        return report

    def _report(self, made: Features, action: int, reward: float) -> dict[str, object]:
        report: dict[str, object] = {
            "row": self.game.row,
            "column": self.game.column,
            "action": action,
            "reward": reward,
            "pearl": int(made.pearl),
            "lily": int(made.lily),
            "hit": int(reward == HIT),
            "liking": float(np.dot(self.weights, made)),
            "presses": self._waiting,
        }
        return report | ({"return": self._total} if self._over else {})

    def change(self, edits: Edits) -> None:
        """Learn from a press: `press` is 1 or -1. Raises `EditError` for anything else."""
        for name, value in edits.items():
            if name != "press":
                raise EditError(f"Unknown edit {name!r} of Teaching. Known: press.")
            if isinstance(value, bool) or value not in (1, -1):
                raise EditError(f"press must be 1 or -1, got {value!r}. Give one of them.")
        if "press" in edits:
            self._learn(float(edits["press"]))  # type: ignore[arg-type]

    def _learn(self, press: float) -> None:
        """Fit H to one press more: ridge regression on the credited mean of the last moves."""
        self.presses, self._waiting, self.since_press = self.presses + 1, self._waiting + 1, 0
        if not self._recent:
            return  # there is nothing yet that it could be about
        shares = self._credit[: len(self._recent)]
        moment = shares @ np.array(self._recent) / shares.sum()
        self._information += np.outer(moment, moment)
        self._evidence += press * moment
        fitted: Weights = np.linalg.solve(self._information, self._evidence)  # type: ignore[assignment]
        self.weights = fitted

    @property
    def recent(self) -> list[Features]:
        """The last moves, the last one first."""
        return [Features(*each) for each in self._recent]

    # State ------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, object]:
        """Return the game, the last moves, and what the presses said."""
        return {
            "game": dict(self.game.state_dict()),
            "over": self._over,
            "total": self._total,
            "counts": [self.steps, self.games, self.presses, self.since_press, self._waiting],
            "recent": [list(each) for each in self._recent],
            "information": self._information.tolist(),
            "evidence": self._evidence.tolist(),
            "weights": self.weights.tolist(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a saved state."""
        self.game.load_state_dict(state["game"])
        self._over, self._total = bool(state["over"]), float(state["total"])
        counts = [int(each) for each in state["counts"]]
        self.steps, self.games, self.presses, self.since_press, self._waiting = counts
        self._recent = [list(each) for each in state["recent"]]
        self._information = np.array(state["information"])
        self._evidence, self.weights = np.array(state["evidence"]), np.array(state["weights"])


def untaught() -> Weights:
    """Return what a person is taken to like before the first press."""
    return np.array([DISLIKED.get(name, 0.0) for name in Features._fields])


def drawn(logits: NDArray[np.float64], draw: float) -> int:
    """Return the action that a number in [0, 1) draws."""
    chances = np.exp(logits - logits.max())
    within = np.cumsum(chances / chances.sum())
    return min(int(np.searchsorted(within, draw, side="right")), len(logits) - 1)


def no_policy(view: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the logits of a policy that knows nothing: every action is as likely."""
    return np.zeros(3)


def likes(weights: Weights, least: float = 0.1) -> list[tuple[str, float]]:
    """Return what a person is taken to like, in words, and how much; dislikes are negative.

    The strongest come first, without those below `least`.
    """
    named = dict(zip(Features._fields, weights.tolist(), strict=True))
    found: list[tuple[str, float]] = []
    for name, (word, opposite) in LIKES.items():
        value = named[name] - DISLIKED.get(name, 0.0) + named.get(f"{word}_ahead", 0.0)
        if abs(value) >= least:
            found.append((opposite, -value) if value < 0 and opposite else (word, value))
    return sorted(found, key=lambda like: -abs(like[1]))
