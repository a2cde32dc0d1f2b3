"""The picture of the mini-game, drawn with numpy: tiles, the boat, the line above.

Knows no rules. A tile is drawn at four times its size and averaged, once for each size.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ostinato.reward.minigame.river import BANK, LILY, PEARL, ROCK, WATER, Cells

Image = NDArray[np.uint8]
Plane = NDArray[np.float64]
"""Numbers (size, size): coordinates, distances, coverage in [0, 1]."""

_FINE = 4  # times a tile's size at which it is drawn
_RIPPLES = 5  # kinds of water, and of land

_DEEP, _FOAM = (38, 110, 168), (96, 164, 210)
_GRASS, _TUFT, _SHORE = (86, 142, 62), (64, 116, 48), (214, 190, 130)
_STONE, _SHADE, _SHINE = (122, 118, 116), (80, 78, 80), (168, 164, 160)
_PEARL, _GLOSS = (250, 236, 190), (255, 255, 255)
_LEAF, _PETAL, _HEART = (40, 128, 84), (242, 140, 178), (255, 224, 110)
_WOOD, _DARK, _SEAT = (168, 104, 52), (98, 58, 30), (222, 176, 112)
_BAR, _INK, _RED, _LOST = (24, 30, 40), (240, 240, 232), (226, 70, 80), (70, 76, 88)


def tiles_of(cells: Cells) -> NDArray[np.int64]:
    """Return the number of each cell's tile; land next to water has a shore on that side."""
    water = np.pad(cells != BANK, 1, mode="edge")
    # The rows go down the river, the picture goes up it.
    sides = water[2:, 1:-1], water[:-2, 1:-1], water[1:-1, :-2], water[1:-1, 2:]
    shores = sum(side.astype(np.int64) << bit for bit, side in enumerate(sides))
    return np.where(cells == BANK, BANK + shores, cells)


def picture(
    tiles: NDArray[np.int64],
    row: int,
    column: int,
    before: int,
    *,
    size: int,
    seed: int,
    hearts: int | None = None,
    score: int = 0,
) -> Image:
    """Return the picture of some rows, the farthest first; the boat is in the last but one.

    A cell is `size` pixels along a side. With `hearts`, a line of the height of a cell is above it,
    with these and the score.
    """
    rows, columns = tiles.shape
    # Counted from the source of the river, so that water and land come towards the boat.
    place = np.arange(row + rows - 2, row - 2, -1)[:, None] * 7 + np.arange(columns) * 3 + seed
    drawn = _tiles(size)[tiles * _RIPPLES + place % _RIPPLES]
    image: Image = drawn.transpose(0, 2, 1, 3, 4).reshape(rows * size, columns * size, 3)
    at = slice((rows - 2) * size, (rows - 1) * size)
    lean = max(-1, min(1, column - before))
    _lay(image[at, column * size : (column + 1) * size], _boat(size, lean))
    if hearts is None:
        return image
    framed: Image = np.concatenate([_line_above(image.shape[1], size, hearts, score), image])
    return framed


# Tiles ----------------------------------------------------------------------------------------


class Sprite(NamedTuple):
    """Something that is laid over a tile: colors times cover (n, n, 3), and cover (n, n, 1)."""

    color: NDArray[np.float64]
    cover: NDArray[np.float64]


class _Canvas:
    """A tile that is being drawn, colors (n, n, 3) in [0, 255] and how much they cover."""

    def __init__(self, size: int) -> None:
        n = size * _FINE
        at = (np.arange(n) + 0.5) / n
        self.x, self.y = np.meshgrid(at, at)
        self.color, self.cover = np.zeros((n, n, 3)), np.zeros((n, n))

    def fill(self, where: NDArray[np.bool_], color: tuple[int, int, int]) -> None:
        """Fill where `where` is true."""
        self.color[where], self.cover[where] = color, 1.0

    def disc(
        self,
        x: float,
        y: float,
        radius: float,
        color: tuple[int, int, int],
        *,
        flat: float = 1.0,
    ) -> None:
        """Fill a disc; `flat` divides its height."""
        inside = (self.x - x) ** 2 + ((self.y - y) * flat) ** 2 < radius**2
        self.fill(inside, color)

    def reduced(self) -> Sprite:
        """Return what was drawn at the tile's size."""
        n = self.cover.shape[0] // _FINE
        split = (n, _FINE, n, _FINE)
        color = (self.color * self.cover[..., None]).reshape(*split, 3).mean((1, 3))
        return Sprite(color, self.cover.reshape(split).mean((1, 3))[..., None])


def _lay(tile: Image, sprite: Sprite) -> None:
    """Lay a sprite over a tile, in place."""
    tile[:] = (tile * (1 - sprite.cover) + sprite.color).round().astype(np.uint8)


@cache
def _tiles(size: int) -> Image:
    """Return all tiles (kinds * _RIPPLES, size, size, 3): four in the water, then 16 of land."""
    drawn = []
    for kind in range(BANK + 16):
        for ripple in range(_RIPPLES):
            canvas = _Canvas(size)
            if kind >= BANK:
                _land(canvas, ripple, kind - BANK)
            else:
                _water(canvas, ripple)
                {WATER: _nothing, PEARL: _pearl, LILY: _lily, ROCK: _rock}[kind](canvas)
            drawn.append(canvas.reduced().color.round().astype(np.uint8))
    return np.stack(drawn)


def _nothing(canvas: _Canvas) -> None:
    """Draw nothing."""


def _water(canvas: _Canvas, ripple: int) -> None:
    canvas.fill(canvas.x > 0, _DEEP)
    for n in range(2):
        x, y = (0.2 + 0.37 * ripple + 0.53 * n) % 1, (0.15 + 0.29 * ripple + 0.47 * n) % 1
        wave = np.abs(canvas.y - y - 0.03 * np.cos(12 * (canvas.x - x))) < 0.025
        canvas.fill(wave & (np.abs(canvas.x - x) < 0.14), _FOAM)


def _land(canvas: _Canvas, tuft: int, shores: int) -> None:
    canvas.fill(canvas.x > 0, _GRASS)
    if tuft < 3:
        for n in range(3):
            x, y = 0.25 + 0.21 * ((tuft + n * 2) % 3), 0.3 + 0.19 * ((tuft * 2 + n) % 3)
            canvas.disc(x, y, 0.07, _TUFT, flat=0.7)
    edges = (canvas.y, 1 - canvas.y, canvas.x, 1 - canvas.x)
    for bit, edge in enumerate(edges):
        if shores >> bit & 1:
            canvas.fill(edge < 0.16, _SHORE)
    for bit, edge in enumerate(edges):
        if shores >> bit & 1:
            canvas.fill(edge < 0.05, _FOAM)


def _pearl(canvas: _Canvas) -> None:
    canvas.disc(0.5, 0.5, 0.25, _DARK)
    canvas.disc(0.5, 0.5, 0.215, _PEARL)
    canvas.disc(0.43, 0.42, 0.075, _GLOSS)


def _lily(canvas: _Canvas) -> None:
    canvas.disc(0.5, 0.58, 0.38, _LEAF, flat=1.4)
    for n in range(6):
        turn = n * np.pi / 3
        x, y = 0.5 + 0.17 * np.cos(turn), 0.48 + 0.15 * np.sin(turn)
        canvas.disc(float(x), float(y), 0.11, _PETAL)
    canvas.disc(0.5, 0.48, 0.09, _HEART)


def _rock(canvas: _Canvas) -> None:
    canvas.disc(0.5, 0.62, 0.44, _FOAM, flat=1.5)
    canvas.disc(0.5, 0.54, 0.4, _SHADE, flat=1.15)
    canvas.disc(0.46, 0.48, 0.34, _STONE, flat=1.2)
    canvas.disc(0.38, 0.38, 0.13, _SHINE, flat=1.5)


@cache
def _boat(size: int, lean: int) -> Sprite:
    """Return the boat as it goes left (-1), straight on or right."""
    canvas = _Canvas(size)
    along = canvas.y - 0.5
    across = canvas.x - 0.5 + 0.3 * lean * along  # sheared, so that it points where it goes
    for grow, color in ((0.06, _DARK), (0.0, _WOOD)):
        width = (0.26 + grow) * (1 - (2 * np.abs(along) / (0.92 + grow)) ** 2.4)
        canvas.fill(np.abs(across) < width, color)
    inner = 0.15 * (1 - (2 * np.abs(along) / 0.7) ** 2)
    canvas.fill(np.abs(across) < inner, _DARK)
    for seat in (-0.12, 0.14):
        canvas.fill((np.abs(along - seat) < 0.045) & (np.abs(across) < 0.2), _SEAT)
    return canvas.reduced()


# The line above -------------------------------------------------------------------------------


def _line_above(width: int, size: int, hearts: int, score: int) -> Image:
    """Return the line with the hearts on its left and the score on its right."""
    line = np.empty((size, width, 3), np.uint8)
    line[:] = _BAR
    for n in range(max(3, hearts)):
        x = n * size
        _lay(line[:, x : x + size], _heart(size, n < hearts))
    dot = max(1, size // 8)
    x = width - dot
    for digit in reversed(str(score)):
        x -= 4 * dot
        _write(line, x, (size - 5 * dot) // 2, int(digit), dot)
    return line


def _write(line: Image, x: int, y: int, digit: int, dot: int) -> None:
    for row, bits in enumerate(_GLYPHS[digit]):
        for column in range(3):
            if bits >> (2 - column) & 1:
                top, left = y + row * dot, x + column * dot
                line[top : top + dot, left : left + dot] = _INK


_GLYPHS = (
    (7, 5, 5, 5, 7),
    (2, 6, 2, 2, 7),
    (7, 1, 7, 4, 7),
    (7, 1, 7, 1, 7),
    (5, 5, 7, 1, 1),
    (7, 4, 7, 1, 7),
    (7, 4, 7, 5, 7),
    (7, 1, 1, 1, 1),
    (7, 5, 7, 5, 7),
    (7, 5, 7, 1, 7),
)
"""Digits of 5 rows, each of 3 bits."""


@cache
def _heart(size: int, full: bool) -> Sprite:
    canvas, color = _Canvas(size), _RED if full else _LOST
    for x in (0.37, 0.63):
        canvas.disc(x, 0.4, 0.155, color)
    below = (canvas.y >= 0.4) & (np.abs(canvas.x - 0.5) * 1.35 < 0.79 - canvas.y)
    canvas.fill(below & (np.abs(canvas.x - 0.5) < 0.28), color)
    return canvas.reduced()
