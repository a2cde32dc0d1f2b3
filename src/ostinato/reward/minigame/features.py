"""What a person may like or dislike about a move in the mini-game, as a few numbers."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ostinato.reward.minigame.environment import ASIDE, River
from ostinato.reward.minigame.river import LILY, PEARL, ROCK, WIDTH, Cells

DISCOUNT = 0.85
"""What a pearl or lily is worth one row farther on."""


class Features(NamedTuple):
    """A move, seen from where it leads."""

    always: float  # 1: what a person thinks of the game as a whole
    hit: float  # it meets a rock or a bank
    pearl: float  # it takes a pearl
    lily: float
    pearls_ahead: float  # how many pearls can be reached then, the near ones counting more
    lilies_ahead: float
    right: float  # the column it leads to, from -1 (left) to 1
    edge: float  # how far that is from the middle of the picture, in [0, 1]
    turn: float  # it is not straight on
    danger: float  # the share of the three cells before it that are solid


LIKES = {
    "pearl": ("pearls", ""),
    "lily": ("lilies", ""),
    "right": ("the right", "the left"),
    "edge": ("the edges", "the middle"),
    "turn": ("turning", "going straight on"),
    "danger": ("going close to rocks", "keeping clear of rocks"),
    "hit": ("hitting things", ""),
}
"""How a liking is called, by feature, and its opposite where that has a name of its own."""


def moves_of(game: River) -> NDArray[np.float64]:
    """Return the features of the three moves (3, features) that can be made now."""
    ahead = game.ahead()
    pearls, lilies = (_within_reach(ahead, kind) for kind in (PEARL, LILY))
    return np.array([_move(game, ahead, pearls, lilies, aside) for aside in (-1, 0, 1)])


def _move(
    game: River, ahead: Cells, pearls: NDArray[np.float64], lilies: NDArray[np.float64], aside: int
) -> Features:
    at, column = ASIDE + aside, game.column + aside
    cell = int(ahead[0, at])
    right = (column - WIDTH // 2) / (WIDTH // 2)
    return Features(
        always=1.0,
        hit=float(cell >= ROCK),
        pearl=float(cell == PEARL),
        lily=float(cell == LILY),
        pearls_ahead=float(pearls[at]),
        lilies_ahead=float(lilies[at]),
        right=right,
        edge=abs(right),
        turn=float(aside != 0),
        danger=float((ahead[1, at - 1 : at + 2] >= ROCK).mean()),
    )


def _within_reach(ahead: Cells, kind: int) -> NDArray[np.float64]:
    """Return by column of the next row what of a kind can be collected beyond it, discounted."""
    worth = (ahead == kind) * 1.0 - (ahead >= ROCK)
    best = np.zeros(ahead.shape[1] + 2)
    for row in worth[:0:-1]:
        best[1:-1] = row + DISCOUNT * np.maximum(np.maximum(best[:-2], best[2:]), best[1:-1])
    reached: NDArray[np.float64] = DISCOUNT * np.maximum(
        np.maximum(best[:-2], best[2:]), best[1:-1]
    )
    return reached
