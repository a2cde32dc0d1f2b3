"""Players of the mini-game that need no training: what a policy is compared with."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from ostinato.loop import uniform
from ostinato.reward.minigame.environment import ASIDE, HIT, LEFT, RIGHT, STRAIGHT, River
from ostinato.reward.minigame.river import LILY, PEARL, ROCK

Player = Callable[[River], int]
"""Chooses an action from what can be seen of a game."""


def random_player(seed: int = 0) -> Player:
    """Return a player that steers at random, the same for the same seed."""

    def play(game: River) -> int:
        return int(3 * uniform(seed, f"player/{game.seed}", 0, 0, game.row))

    return play


def greedy(game: River) -> int:
    """Avoid what is solid in the next row, and steer for the nearest pearl or lily."""
    ahead = game.ahead()
    free = [move for move in (STRAIGHT, LEFT, RIGHT) if ahead[0, ASIDE + move - 1] < ROCK]
    good = np.argwhere((ahead == PEARL) | (ahead == LILY)) - (0, ASIDE)
    # What is farther aside than ahead cannot be reached.
    reachable = good[np.abs(good[:, 1]) <= good[:, 0] + 1]
    if not free or len(reachable) == 0:
        return free[0] if free else STRAIGHT
    aside = int(reachable[np.argmin(reachable[:, 0]), 1])
    return min(free, key=lambda move: abs(aside - (move - 1)))


def planner(game: River) -> int:
    """Take the best path through all that can be seen, by dynamic programming.

    The strongest of these players: nobody who sees no more than this can do much better.
    """
    ahead = game.ahead()
    worth = _WORTH[ahead]
    best = worth[-1]
    for row in worth[-2::-1]:
        best = row + _reached(best).max(0)
    left, straight, right = best[ASIDE - 1 : ASIDE + 2]
    return STRAIGHT if straight >= max(left, right) else LEFT if left >= right else RIGHT


def _reached(best: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return what the next row is worth (3, columns): left, straight on and right of each."""
    wide = np.pad(best, 1, constant_values=-np.inf)
    return np.stack([wide[:-2], wide[1:-1], wide[2:]])


# A bank costs a little more than a rock: it also throws the boat off its path.
_WORTH = np.array([0.0, 1.0, 1.0, HIT, HIT - 0.5])


def score_of(player: Player, seed: int) -> dict[str, float]:
    """Play a game from a seed to its end; return its `return`, `rows`, `pearls` and so on."""
    game, total, over = River(), 0.0, False
    game.reset(seed=seed)
    info: dict[str, float] = {}
    while not over:
        _, reward, lost, ended, info = game.step(player(game))
        total, over = total + float(reward), lost or ended
    return {"return": total, "rows": game.row, **info}
