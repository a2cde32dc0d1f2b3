"""The river of the mini-game: its banks, its rocks and what can be collected, from a seed.

Knows no boat and no rules.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ostinato.loop import fold_in

Cells = NDArray[np.int8]
"""What lies where (rows, WIDTH): one of the five below."""

WATER, PEARL, LILY, ROCK, BANK = range(5)
WIDTH = 11  # columns, the banks included
LENGTH = 300  # rows of a game
AHEAD = 8  # rows that are seen before the boat
QUIET = 5  # first rows, without rocks

_BANKS = (1, 3)  # columns of a bank
_ROCKS = (0.12, 0.4)  # the share of cells with a rock, at the beginning and at the end
_PEARLS = _LILIES = 0.045


def river_of(seed: int) -> Cells:
    """Return the cells (LENGTH + 1 + AHEAD, WIDTH) of a river, the same for the same seed.

    A boat that keeps to a hidden channel, one column a step at most, meets neither rock nor bank.
    """
    rows = LENGTH + 1 + AHEAD
    draws = np.random.Generator(np.random.PCG64(fold_in(seed, "river"))).random((rows, WIDTH + 3))
    left, right = (_wander(draws[:, WIDTH + side], 0.3, *_BANKS) for side in (0, 1))
    far = WIDTH - 1 - right
    channel = np.clip(_wander(draws[:, WIDTH + 2], 0.7, 0, WIDTH - 1), left, far)

    columns = np.arange(WIDTH)
    bank = (columns < left[:, None]) | (columns > far[:, None])
    share = np.linspace(*_ROCKS, rows)[:, None]
    share[:QUIET] = 0
    rock = (draws[:, :WIDTH] < share) & (columns != channel[:, None])
    good = 1 - draws[:, :WIDTH]  # of the same draw: no cell has both
    cells = np.zeros((rows, WIDTH), np.int8)
    cells[good < _PEARLS + _LILIES] = LILY
    cells[good < _PEARLS] = PEARL
    cells[rock], cells[bank] = ROCK, BANK
    return cells


def _wander(draws: NDArray[np.float64], moves: float, low: int, high: int) -> NDArray[np.int64]:
    """Return a walk in [low, high] by at most one a step; `moves` is the share of its moves."""
    steps = np.sign(draws - 0.5) * (np.abs(draws - 0.5) > 0.5 - moves / 2)
    span = high - low
    # A walk that is reflected at both ends is a free one folded like a fan.
    folded = np.mod(np.cumsum(steps) + draws[0] * 2 * span // 1, 2 * span)
    walk: NDArray[np.int64] = (low + np.minimum(folded, 2 * span - folded)).astype(np.int64)
    return walk
