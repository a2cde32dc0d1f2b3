"""A text while it is written, for a class: the candidates of each token before it is drawn.

One column for a text; several texts of one prompt stand side by side. Knows no model.
"""

from __future__ import annotations

import json
import math
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

from rich.cells import set_cell_size

from ostinato.arguments import counted
from ostinato.cli.chat.redraw import broken, visible
from ostinato.cli.keyboard import Keyboard, Screen, full_screen, require_terminal
from ostinato.errors import InputError

NARROWEST = 24
"""Cells of a column: a token and its two probabilities."""
GAP = "   "
BAR = 10
"""The fewest cells for a bar of a probability; where there are fewer, there is none."""
KEYS = "space: next token   q: end"
LINES = 18
"""Lines of a screen: what stands around the text, and a few of it."""
ADVANCE, LEAVE = (" ", "enter"), "q"
LOOK = 0.05
"""Seconds between two looks at whether a signal came."""


@dataclass
class TokenColumn:
    """A text so far, and the report of its next token, which is not shown as drawn yet.

    `stop` says why the text ends behind that token; `sentence`, that it has ended.
    """

    title: str
    text: str = ""
    count: int = 0
    pending: Mapping[str, Any] | None = None
    first: Mapping[str, Any] | None = None
    drawn: str = ""
    stop: str = ""
    sentence: str = ""

    def reveal(self) -> None:
        """Add the pending token to the text."""
        if self.pending is not None:
            self.text += str(self.pending["text"])
            self.first = self.pending if self.count == 0 else self.first
            self.count += 1
            model, drawn = math.exp(self.pending["logprob"]), self.pending["drawn_prob"]
            self.drawn = f"drawn: {token_in_words(self.pending)}, {model:.1%} → {drawn:.1%}"
            self.pending = None
        self.sentence = self.stop

    def text_lines(self, width: int) -> list[str]:
        """Return the text so far in lines of at most `width` cells."""
        return broken(visible(self.text), width)

    def lines(self, width: int, text: Sequence[str]) -> list[str]:
        """Return the column in lines of at most `width` cells, with these lines of its text."""
        shown = [*broken(self.title, width), "", *text, ""]
        if self.sentence:
            first = [] if self.first is None else ["", *candidates(1, self.first, width)]
            return [
                *shown,
                *broken(f"[{counted(self.count, 'tokens')}. {self.sentence}]", width),
                *first,
            ]
        if self.pending is not None:
            shown += candidates(self.count + 1, self.pending, width)
        return [*shown, "", *broken(self.drawn, width)] if self.drawn else shown


def token_in_words(report: Mapping[str, Any]) -> str:
    """Return a drawn token in quotes, or that it is the end."""
    text = str(report["text"])
    return "(end)" if "ended" in report and not text else _quoted(text)


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False) if text else "(end)"


def candidates(number: int, report: Mapping[str, Any], width: int) -> list[str]:
    """Return the likeliest tokens, each with the model's probability and the one drawn with."""
    rows: list[tuple[str, float, float]] = [
        (_quoted(visible(text)), model, drawn) for text, model, drawn in report["alternatives"]
    ]
    others = max(0.0, 1 - sum(row[1] for row in rows)), max(0.0, 1 - sum(row[2] for row in rows))
    name = min(20, width - 16)
    room = width - name - 16 - 1
    lines = [f"{set_cell_size(f'token {number}', name)}{'model':>7}  {'drawn':>7}"]
    for text, model, drawn in [*rows, ("others", *others)]:
        bar = f" {'█' * round(drawn * room)}" if room >= BAR else ""
        lines.append(f"{set_cell_size(text, name)}{model:7.1%}  {drawn:7.1%}{bar}")
    return lines


def side_by_side(columns: Sequence[TokenColumn], width: int, most: int | None = None) -> list[str]:
    """Return columns beside one another, in lines of at most `width` cells.

    What is below the texts begins at one line; of a text its last `most` lines are shown.
    """
    each = column_width(len(columns), width)
    texts = [column.text_lines(each)[-(most or 0) :] for column in columns]
    rows = max(map(len, texts))
    filled = [[*text, *[""] * (rows - len(text))] for text in texts]
    made = [column.lines(each, text) for column, text in zip(columns, filled, strict=True)]
    return [
        GAP.join(set_cell_size(cell, each) for cell in row).rstrip()
        for row in zip_longest(*made, fillvalue="")
    ]


def column_width(count: int, width: int) -> int:
    """Return the cells of each of so many columns. Raises `InputError` for too few."""
    each = (width - len(GAP) * (count - 1)) // count
    if each < NARROWEST:
        need = NARROWEST * count + len(GAP) * (count - 1)
        raise InputError(
            f"The terminal must have at least {need} columns for {count} temperatures, got "
            f"{width}. Make its window wider, or give fewer."
        )
    return each


class TokenStage:
    """Shows columns on a screen, and waits for a key before the pending tokens are drawn.

    `head` is a line above them. With `pace` it goes on by itself after so many seconds. `ended`
    says that a signal came.
    """

    def __init__(
        self,
        columns: Sequence[TokenColumn],
        keyboard: Keyboard,
        screen: Screen,
        *,
        head: str,
        pace: float | None,
        ended: Callable[[], object],
    ) -> None:
        self.columns, self._head = columns, head
        self._keyboard, self._screen = keyboard, screen
        self._pace, self._ended = pace, ended

    def next(self) -> bool:
        """Show the candidates, wait, and draw; False where somebody has ended it."""
        self._show()
        goes_on = self._wait()
        for column in self.columns:
            column.reveal()
        return goes_on

    def _show(self) -> None:
        size = shutil.get_terminal_size()
        above = [set_cell_size(line, size.columns).rstrip() for line in (KEYS, "", self._head, "")]
        below = side_by_side(self.columns, size.columns, max(1, size.lines - LINES + 2))
        self._screen.show([*above, *below][: size.lines - 1])

    def _wait(self) -> bool:
        over = math.inf if self._pace is None else time.monotonic() + self._pace
        while not self._ended() and (now := time.monotonic()) < over:
            for key in self._keyboard.until(min(over, now + LOOK)):
                if key == LEAVE:
                    return False
                if key in ADVANCE:
                    return True
        return not self._ended()


@contextmanager
def staged(
    columns: Sequence[TokenColumn],
    *,
    head: str,
    pace: float | None,
    ended: Callable[[], object] = lambda: False,
) -> Iterator[TokenStage]:
    """Take over the terminal for the block. Raises `InputError` where there is none."""
    require_stage(len(columns))
    with full_screen() as (keyboard, screen):
        yield TokenStage(columns, keyboard, screen, head=head, pace=pace, ended=ended)


def require_stage(count: int) -> None:
    """Raise `InputError` where so many columns cannot be stepped through in a terminal."""
    require_terminal(NARROWEST, LINES, "Leave out --step, or use --pace 1 --show.")
    column_width(count, shutil.get_terminal_size().columns)
