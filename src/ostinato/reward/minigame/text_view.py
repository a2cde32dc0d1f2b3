"""The mini-game as lines of text, two characters a cell: in ASCII, in Unicode, in colors.

Knows no terminal: it returns lines, with escape sequences where colors are asked for.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from ostinato.reward.minigame.environment import HEARTS, River
from ostinato.reward.minigame.river import AHEAD, BANK, LENGTH, LILY, PEARL, ROCK, WATER, WIDTH

COLUMNS = 2 * WIDTH
"""Characters of a line of the picture."""
LINES = AHEAD + 3
"""Lines of the picture, with the one that counts."""

RESET = "\x1b[0m"


class Glyph(NamedTuple):
    """A cell: two characters, and its foreground and background among the 256 colors."""

    ascii: str
    unicode: str
    ink: int
    ground: int


_GLYPHS = {
    WATER: Glyph("  ", "  ", 31, 25),
    PEARL: Glyph("o ", "● ", 230, 25),
    LILY: Glyph("* ", "✿ ", 218, 25),
    ROCK: Glyph("##", "▟▙", 245, 25),
    BANK: Glyph("::", "░░", 64, 28),
}
_BOAT = {
    -1: Glyph("<\\", "◀▌", 215, 25),
    0: Glyph("/\\", "▐▌", 215, 25),
    1: Glyph("/>", "▐▶", 215, 25),
}
_HEART = Glyph("<3", "♥ ", 203, 16)


@dataclass(frozen=True, kw_only=True)
class TextStyle:
    """How the lines are written."""

    unicode: bool = False
    colors: bool = False

    def cell(self, glyph: Glyph) -> str:
        """Return a cell's two characters, with its colors."""
        text = glyph.unicode if self.unicode else glyph.ascii
        if not self.colors:
            return text
        return f"\x1b[38;5;{glyph.ink};48;5;{glyph.ground}m{text}"


def lines_of(game: River, style: TextStyle) -> list[str]:
    """Return the picture of a game as LINES lines: how it stands, then the river."""
    end = RESET if style.colors else ""
    cells = game.seen().tolist()
    lines = [_standing(game, style)]
    for number, row in enumerate(cells):
        glyphs = [_GLYPHS[cell] for cell in row]
        if number == len(cells) - 2:
            glyphs[game.column] = _BOAT[max(-1, min(1, game.column - game.before))]
        lines.append("".join(map(style.cell, glyphs)) + end)
    return lines


def _standing(game: River, style: TextStyle) -> str:
    """Return the line above: the hearts, the score, the rows that are left."""
    heart = _HEART.unicode if style.unicode else _HEART.ascii
    hearts = (heart * game.hearts).ljust(2 * HEARTS)
    left = LENGTH - game.row
    return f"{hearts}{game.pearls + game.lilies:>5}{left:>5} to go"
