"""Curves as a picture: values over steps, a color for each series. Knows no run."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from PIL import Image, ImageDraw, ImageFont

from ostinato.arguments import require

COLORS = ("#1f4e9c", "#d1495b", "#2e8b57", "#e0922f", "#7a4fb3", "#3a3a3a")
INK, GRID, PAPER = "#333333", "#dddddd", "white"
SCALE = 2  # drawn larger, then made smaller: lines are smooth
MARKS = 5  # on an axis, about
MOST_DOTS = 4000


class Area(NamedTuple):
    """The part of a picture in which curves are drawn, in pixels."""

    left: int
    top: int
    right: int
    bottom: int


@dataclass(frozen=True)
class Series:
    """Points (x, y) of one curve. With `over` above 1, they are dots under their moving mean."""

    name: str
    points: Sequence[tuple[float, float]]
    over: int = 1


def save_curves(
    path: Path,
    series: Sequence[Series],
    *,
    x_name: str = "step",
    size: tuple[int, int] = (640, 360),
) -> None:
    """Draw series into one picture (PNG). Raises `InputError` where none has a finite point."""
    finite = [
        Series(each.name, [point for point in each.points if math.isfinite(point[1])], each.over)
        for each in series
    ]
    points = [point for each in finite for point in each.points]
    require(bool(points), "A curve", "at least one finite value", "none")
    _Chart(points, x_name, size).draw(finite).save(path, optimize=True)


def moving_mean(points: Sequence[tuple[float, float]], over: int) -> list[tuple[float, float]]:
    """Return at each point the mean of it and those before, `over` at most."""
    total, found = 0.0, []
    for number, (x, y) in enumerate(points):
        total += y - (points[number - over][1] if number >= over else 0.0)
        found.append((x, total / min(over, number + 1)))
    return found


class _Chart:
    def __init__(
        self, points: Sequence[tuple[float, float]], x_name: str, size: tuple[int, int]
    ) -> None:
        self._size, self._x_name = size, x_name
        self._x = _marks([x for x, _ in points])
        self._y = _marks([y for _, y in points])
        width, height = (each * SCALE for each in size)
        self._image = Image.new("RGB", (width, height), PAPER)
        self._pen = ImageDraw.Draw(self._image)
        self._font = ImageFont.load_default(size=12 * SCALE)
        longest = max(self._pen.textlength(_text(mark), font=self._font) for mark in self._y)
        self._area = Area(
            round(longest) + 14 * SCALE, 30 * SCALE, width - 16 * SCALE, height - 44 * SCALE
        )

    def draw(self, series: Sequence[Series]) -> Image.Image:
        """Draw the axes and all series."""
        area, pen = self._area, self._pen
        for mark in self._y:
            y = self._at(self._x[0], mark)[1]
            pen.line([(area.left, y), (area.right, y)], fill=GRID, width=SCALE)
            pen.text(
                (area.left - 6 * SCALE, y), _text(mark), fill=INK, font=self._font, anchor="rm"
            )
        for mark in self._x:
            x = self._at(mark, self._y[0])[0]
            pen.text(
                (x, area.bottom + 6 * SCALE), _text(mark), fill=INK, font=self._font, anchor="ma"
            )
        middle = (area.left + area.right) / 2, self._image.height - 4 * SCALE
        pen.text(middle, self._x_name, fill=INK, font=self._font, anchor="md")
        left = float(area.left)
        for number, each in enumerate(series):
            color = COLORS[number % len(COLORS)]
            self._curve(each, color)
            pen.text((left, 8 * SCALE), each.name, fill=color, font=self._font)
            left += pen.textlength(each.name, font=self._font) + 16 * SCALE
        return self._image.resize(self._size, Image.Resampling.LANCZOS)

    def _write(self, at: tuple[float, float], text: str, anchor: str) -> None:
        self._pen.text(at, text, fill=INK, font=self._font, anchor=anchor)

    def _curve(self, series: Series, color: str) -> None:
        points = sorted(series.points)
        if series.over > 1:
            every = max(1, len(points) // MOST_DOTS)
            for x, y in (self._at(*point) for point in points[::every]):
                box = [x - 1.5 * SCALE, y - 1.5 * SCALE, x + 1.5 * SCALE, y + 1.5 * SCALE]
                self._pen.ellipse(box, fill=_pale(color))
            points = moving_mean(points, series.over)
        line = [self._at(*point) for point in points]
        if len(line) == 1:
            (x, y), size = line[0], 3 * SCALE
            self._pen.ellipse([x - size, y - size, x + size, y + size], fill=color)
        else:
            self._pen.line(line, fill=color, width=2 * SCALE, joint="curve")

    def _at(self, x: float, y: float) -> tuple[float, float]:
        area = self._area
        across = (x - self._x[0]) / (self._x[-1] - self._x[0])
        up = (y - self._y[0]) / (self._y[-1] - self._y[0])
        return (
            area.left + across * (area.right - area.left),
            area.bottom - up * (area.bottom - area.top),
        )


def _marks(values: Iterable[float]) -> list[float]:
    """Return round numbers, evenly apart, around values."""
    found = list(values)
    low, high = min(found), max(found)
    if low == high:
        low, high = low - (abs(low) or 1) / 2, high + (abs(high) or 1) / 2
    rough = (high - low) / MARKS
    power = 10.0 ** math.floor(math.log10(rough))
    apart = next(each * power for each in (1, 2, 2.5, 5, 10) if each * power >= rough)
    first, last = math.floor(low / apart + 1e-9), math.ceil(high / apart - 1e-9)
    return [number * apart for number in range(first, last + 1)]


def _text(mark: float) -> str:
    """Return a number as an axis shows it."""
    for size, unit in ((1e6, "M"), (1e3, "k")):
        if abs(mark) >= 10 * size or (abs(mark) >= size and mark % (size / 10) == 0):
            return f"{mark / size:g}{unit}"
    return f"{mark:.6g}"


def _pale(color: str) -> str:
    parts = [int(color[at : at + 2], 16) for at in (1, 3, 5)]
    return "#" + "".join(f"{255 - (255 - part) * 3 // 10:02x}" for part in parts)
