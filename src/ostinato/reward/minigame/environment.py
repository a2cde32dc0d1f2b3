"""The mini-game as a Gymnasium environment: a boat on a river, with pearls, lilies and rocks.

Everything that happens depends on the seed and the actions alone. `state_dict` and
`load_state_dict` copy a game exactly.
"""

from __future__ import annotations

from typing import Any, Literal, SupportsFloat, TypedDict

import numpy as np
from numpy.typing import NDArray

from ostinato.arguments import require
from ostinato.errors import MissingExtra
from ostinato.reward.minigame.drawing import picture, tiles_of
from ostinato.reward.minigame.river import (
    AHEAD,
    BANK,
    LENGTH,
    LILY,
    PEARL,
    ROCK,
    WATER,
    WIDTH,
    Cells,
    river_of,
)

try:
    import gymnasium
    from gymnasium import spaces
except ImportError:
    raise MissingExtra("The mini-game", "games") from None

RIVER = "ostinato/River-v0"
RIVER_PIXELS = "ostinato/RiverPixels-v0"

LEFT, STRAIGHT, RIGHT = range(3)
HEARTS = 3
HIT = -5.0  # the reward for a rock or a bank; a pearl or lily gives 1
ASIDE = 4  # columns that the symbolic view shows on each side of the boat
SEEN = AHEAD * (2 * ASIDE + 1) * 3 + 3
"""Numbers of the symbolic view."""
PIXELS, TILE = 6, 24  # along a side of a cell: in the pixel view, and rendered

View = Literal["symbols", "pixels"]


class RiverState(TypedDict):
    """A game as JSON holds it: all that its future depends on, given the actions."""

    seed: int
    row: int
    column: int
    before: int
    hearts: int
    pearls: int
    lilies: int
    hits: int
    random: dict[str, Any]


class River(gymnasium.Env[NDArray[Any], int]):
    """Steer a boat down a river: 0 left, 1 straight on, 2 right.

    Each step takes the boat one row down. A pearl or a lily gives 1; a rock or a bank costs 5 and
    one of three hearts. The game is lost without hearts (terminated), and over after 300 rows
    (truncated). Rocks become more frequent on the way.

    The view is `symbols`, 219 numbers: for each of the next 8 rows and 9 columns around the boat
    whether there is something solid, a pearl, a lily; then the boat's column in [-1, 1], the
    hearts and the rows left as shares. Or it is `pixels`, uint8 (60, 66, 3). `info` counts
    `pearls`, `lilies` and `hits`.

    >>> game = gymnasium.make("ostinato/River-v0", render_mode="rgb_array")
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 6}  # noqa: RUF012

    def __init__(self, view: View = "symbols", render_mode: str | None = None) -> None:
        require(view in ("symbols", "pixels"), "view", "symbols or pixels", view)
        modes = [None, *self.metadata["render_modes"]]
        require(render_mode in modes, "render_mode", "rgb_array or None", render_mode)
        self.view, self.render_mode = view, render_mode
        self.action_space = spaces.Discrete(3)  # type: ignore[assignment]
        if view == "pixels":
            shape = ((AHEAD + 2) * PIXELS, WIDTH * PIXELS, 3)
            self.observation_space = spaces.Box(0, 255, shape, np.uint8)
        else:
            self.observation_space = spaces.Box(-1.0, 1.0, (SEEN,), np.float32)
        self._begin(0)

    # The rules --------------------------------------------------------------------------------

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[Any], dict[str, Any]]:
        """Begin a game on a new river; with `seed`, the same one for the same seed."""
        super().reset(seed=seed)
        self._begin(int(self.np_random.integers(2**31)))
        return self._view(), self._info()

    def _begin(self, seed: int) -> None:
        self.seed, self._cells = seed, river_of(seed)
        # Beyond the banks there is only land.
        self._wide = np.pad(self._cells, ((0, 0), (ASIDE, ASIDE)), constant_values=BANK)
        self._tiles: NDArray[np.int64] | None = None  # only who draws needs them
        self.row, self.hearts = 0, HEARTS
        self.column = self.before = WIDTH // 2
        self.pearls = self.lilies = self.hits = 0

    def step(self, action: int) -> tuple[NDArray[Any], SupportsFloat, bool, bool, dict[str, Any]]:
        """Move the boat aside and one row down."""
        self.before, self.row = self.column, self.row + 1
        self.column += int(action) - 1
        reward = self._meet(self._cells[self.row])
        lost = self.hearts <= 0
        return self._view(), reward, lost, self.row >= LENGTH and not lost, self._info()

    def _meet(self, row: Cells) -> float:
        """Let the boat meet what lies in its cell; return the reward."""
        found = int(row[self.column])
        if found == WATER:
            return 0.0
        if found == PEARL:
            self.pearls += 1
            return 1.0
        if found == LILY:
            self.lilies += 1
            return 1.0
        if found == BANK:  # the water pushes it back
            water = np.flatnonzero(row != BANK)
            self.column = int(water[np.argmin(np.abs(water - self.column))])
        self.hits, self.hearts = self.hits + 1, self.hearts - 1
        return HIT

    def _info(self) -> dict[str, Any]:
        return {"pearls": self.pearls, "lilies": self.lilies, "hits": self.hits}

    # The views --------------------------------------------------------------------------------

    def _view(self) -> NDArray[Any]:
        return self.pixels() if self.view == "pixels" else self.symbols()

    def symbols(self) -> NDArray[np.float32]:
        """Return the symbolic view: the water before the boat, and how the game stands."""
        view = np.empty(SEEN, np.float32)
        view[:-3] = _CODES[self.ahead()].ravel()
        middle = WIDTH // 2
        view[-3:] = (self.column - middle) / middle, self.hearts / HEARTS, 1 - self.row / LENGTH
        return view

    def ahead(self) -> Cells:
        """Return the cells (AHEAD, 2 ASIDE + 1) before the boat, which is below the middle one."""
        rows = slice(self.row + 1, self.row + 1 + AHEAD)
        return self._wide[rows, self.column : self.column + 2 * ASIDE + 1]

    def seen(self) -> Cells:
        """Return the cells (AHEAD + 2, WIDTH) of the picture, the farthest first.

        The boat is in the last but one row; what it has taken is gone.
        """
        return self._window(self._cells)

    def _window(self, rows: NDArray[Any]) -> NDArray[Any]:
        # Before the first row there is the water that the boat comes from.
        shown = rows[max(0, self.row - 1) : self.row + 1 + AHEAD].copy()
        if self.row == 0:
            shown = np.concatenate([shown[:1], shown])
        for row, column in ((0, self.before), (1, self.column)):
            if shown[row, column] in (PEARL, LILY):
                shown[row, column] = WATER
        return shown[::-1]

    def pixels(self) -> NDArray[np.uint8]:
        """Return the pixel view, uint8 (60, 66, 3)."""
        return self._picture(PIXELS)

    def render(self) -> NDArray[np.uint8] | None:
        """Return the picture, uint8 (264, 264, 3), with the hearts and the score above."""
        if self.render_mode is None:
            return None
        return self._picture(TILE, hearts=self.hearts, score=self.pearls + self.lilies)

    def _picture(self, size: int, **above: int) -> NDArray[np.uint8]:
        if self._tiles is None:
            self._tiles = tiles_of(self._cells)
        tiles = self._window(self._tiles)
        return picture(
            tiles, self.row, self.column, self.before, size=size, seed=self.seed, **above
        )

    # Copies -----------------------------------------------------------------------------------

    def state_dict(self) -> RiverState:
        """Return the game as JSON can hold it."""
        return {
            "seed": self.seed,
            "row": self.row,
            "column": self.column,
            "before": self.before,
            "hearts": self.hearts,
            "pearls": self.pearls,
            "lilies": self.lilies,
            "hits": self.hits,
            "random": dict(self.np_random.bit_generator.state),
        }

    def load_state_dict(self, state: RiverState) -> None:
        """Continue exactly where `state_dict` was taken."""
        self._begin(state["seed"])
        self.row, self.column, self.before = state["row"], state["column"], state["before"]
        self.hearts, self.hits = state["hearts"], state["hits"]
        self.pearls, self.lilies = state["pearls"], state["lilies"]
        self.np_random.bit_generator.state = state["random"]


_CODES = np.zeros((5, 3), np.float32)
_CODES[[ROCK, BANK], 0] = 1
_CODES[PEARL, 1] = _CODES[LILY, 2] = 1


def register_games() -> None:
    """Let `gymnasium.make` know the mini-game; importing `River` does it, too."""
    for name, view in ((RIVER, "symbols"), (RIVER_PIXELS, "pixels")):
        if name not in gymnasium.registry:
            gymnasium.register(name, entry_point=f"{__name__}:River", kwargs={"view": view})


register_games()
