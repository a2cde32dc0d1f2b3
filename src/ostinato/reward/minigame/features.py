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
    blocked: float  # no way leads on from there, as far as can be seen


LIKES = {
    "pearl": ("pearls", ""),
    "lily": ("lilies", ""),
    "right": ("the right", "the left"),
    "edge": ("the edges", "the middle"),
    "turn": ("turning", "going straight on"),
    "blocked": ("dead ends", ""),
    "hit": ("hitting things", ""),
}
"""How a liking is called, by feature, and its opposite where that has a name of its own."""


class _Beyond(NamedTuple):
    """By column of the next row, what lies beyond it."""

    pearls: NDArray[np.float64]
    lilies: NDArray[np.float64]
    way_on: NDArray[np.bool_]


def moves_of(game: River) -> NDArray[np.float64]:
    """Return the features of the three moves (3, features) that can be made now."""
    ahead = game.ahead()
    beyond = _Beyond(_within_reach(ahead, PEARL), _within_reach(ahead, LILY), _way_on(ahead))
    return np.array([_move(game.column + aside, ahead, beyond, aside) for aside in (-1, 0, 1)])


def _move(column: int, ahead: Cells, beyond: _Beyond, aside: int) -> Features:
    at = ASIDE + aside
    cell = int(ahead[0, at])
    right = (column - WIDTH // 2) / (WIDTH // 2)
    return Features(
        always=1.0,
        hit=float(cell >= ROCK),
        pearl=float(cell == PEARL),
        lily=float(cell == LILY),
        pearls_ahead=float(beyond.pearls[at]),
        lilies_ahead=float(beyond.lilies[at]),
        right=right,
        edge=abs(right),
        turn=float(aside != 0),
        blocked=float(not beyond.way_on[at]),
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


def _way_on(ahead: Cells) -> NDArray[np.bool_]:
    """Return by column of the next row whether a way without rocks leads on to the last row."""
    free = np.zeros(ahead.shape[1] + 2, bool)
    free[1:-1] = True
    for row in ahead[:0:-1]:
        free[1:-1] = (row < ROCK) & (free[:-2] | free[1:-1] | free[2:])
    return free[:-2] | free[1:-1] | free[2:]
