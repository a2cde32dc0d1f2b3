"""The chart at the head of a report: one bar for each item, as high as its cost in tokens."""

from __future__ import annotations

from collections.abc import Sequence
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


def sparkline(results: Sequence[Result]) -> Sparkline | None:
    """Return the bars of the items, in their order; None if the model wrote fewer than two."""
    written = [result for result in results if result.tokens.computed]
    if len(written) < 2:
        return None
    # Rounded up.
    share = -(-len(written) // MOST)
    groups = [written[at : at + share] for at in range(0, len(written), share)]
    bars = [_bar(group) for group in groups]
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


def _bar(group: Sequence[Result]) -> tuple[float, float, float]:
    """Return the mean tokens per item, bottom to top: in accepted replies, taken back, given up."""
    lost = sum(result.tokens.discarded for result in group)
    left = sum(r.tokens.computed - r.tokens.discarded for r in group if not r.accepted)
    kept = sum(r.tokens.computed - r.tokens.discarded for r in group if r.accepted)
    return kept / len(group), lost / len(group), left / len(group)
