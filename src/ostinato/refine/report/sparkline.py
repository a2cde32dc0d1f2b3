"""The chart at the head of a report: one bar for each item, as high as its cost in tokens."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ostinato.refine.results import Result

MOST = 240
"""How many bars fit; more items share bars."""

FEWEST = 80
"""The minimum number of bar slots, so that few bars are not wide."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sparkline:
    """SVG paths in a chart 100 units high: tokens in accepted replies, taken back, and given up."""

    width: int
    kept: str
    lost: str
    left: str
    label: str


class Bars:
    """Adds up the bars of a chart, result by result; where they become too many, two become one."""

    def __init__(self) -> None:
        self._share = 1  # items in a bar
        self._count = 0  # items in the last bar
        self._bars: list[tuple[float, float, float]] = []

    def add(self, result: Result) -> None:
        """Add an item that the model wrote."""
        if not result.tokens.computed:
            return
        if not self._bars or self._count == self._share:
            if len(self._bars) == MOST:
                self._halve()
            self._bars.append((0, 0, 0))
            self._count = 0
        self._bars[-1] = _sum(self._bars[-1], _bar(result))
        self._count += 1

    def _halve(self) -> None:
        pairs = zip(self._bars[::2], self._bars[1::2], strict=True)
        self._bars = [_sum(one, other) for one, other in pairs]
        self._share *= 2
        self._count = self._share

    def chart(self) -> Sparkline | None:
        """Return the chart; None if the model wrote fewer than two items."""
        if self._share * (len(self._bars) - 1) + self._count < 2:
            return None
        counts = [self._share] * (len(self._bars) - 1) + [self._count]
        means = [
            tuple(tokens / count for tokens in bar)
            for bar, count in zip(self._bars, counts, strict=True)
        ]
        return _chart(means, self._share)


def sparkline(results: Iterable[Result]) -> Sparkline | None:
    """Return the bars of the items, in their order; None if the model wrote fewer than two."""
    bars = Bars()
    for result in results:
        bars.add(result)
    return bars.chart()


def _chart(bars: Sequence[Sequence[float]], share: int) -> Sparkline:
    tallest = max(sum(bar) for bar in bars)
    paths = ["", "", ""]
    for n, bar in enumerate(bars):
        at = 100.0  # SVG counts down from the top
        for number, tokens in enumerate(bar):
            # Four units of margin at the top.
            height = 96 * tokens / tallest
            if tokens:  # a bar is 4 units wide, with 1 unit of margin on either side
                paths[number] += f"M{n * 6 + 1} {at:.1f}v{-height:.1f}h4v{height:.1f}z"
            at -= height
    each = "a bar is an item" if share == 1 else f"a bar is {share} items"
    label = f"Tokens computed: {each}, in the order of the input; the tallest took {tallest:,.0f}."
    kept, lost, left = paths
    return Sparkline(width=max(len(bars), FEWEST) * 6, kept=kept, lost=lost, left=left, label=label)


def _bar(result: Result) -> tuple[float, float, float]:
    """Return the tokens of an item, bottom to top: in accepted replies, taken back, given up."""
    lost = result.tokens.discarded
    written = result.tokens.computed - lost
    return (written, lost, 0) if result.accepted else (0, lost, written)


def _sum(
    one: tuple[float, float, float], other: tuple[float, float, float]
) -> tuple[float, float, float]:
    return one[0] + other[0], one[1] + other[1], one[2] + other[2]
