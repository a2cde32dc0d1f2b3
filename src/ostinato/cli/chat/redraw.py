"""A text that grows in a terminal, and is drawn again where a part of it was taken back.

Lines are broken here, not by the terminal: so it is known on which line the cursor is.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from typing import TextIO

from rich.cells import cell_len, chop_cells

ESCAPE = "\x1b["
AGAIN = "(The beginning has left the screen; the text again:)"
JOINERS = "\u200c\u200d"
_PARTS = re.compile(r"[^\S\n]+|\S+")


class Redraw:
    """Shows a text on a terminal of so many columns and lines, from the start of a line on.

    `label` stands before it, `width` cells wide.
    """

    def __init__(
        self, stream: TextIO, columns: int, lines: int, label: str = "", width: int = 0
    ) -> None:
        self._stream, self._columns, self._height = stream, columns, lines
        self._indent = width
        self._lines: Sequence[str] = [""]
        stream.write(label)
        stream.flush()

    def show(self, text: str) -> None:
        """Show a text, whole each time: draw what has changed of it."""
        lines = broken(visible(text), self._columns - 1, self._indent)
        if lines == self._lines:
            return
        pairs = enumerate(zip(self._lines, lines, strict=False))
        last = min(len(self._lines), len(lines)) - 1
        first = next((number for number, (old, new) in pairs if old != new), last)
        old, up = self._lines[first], len(self._lines) - 1 - first
        if up == 0 and lines[first].startswith(old):
            self._write(lines[first].removeprefix(old), lines[first + 1 :])
        elif up < self._height:
            across = self._indent if first == 0 else 0
            self._stream.write(_moved(up, across))
            self._write(lines[first], lines[first + 1 :])
        else:
            self._indent = 0
            lines = broken(visible(text), self._columns - 1, 0)
            self._write("", [*broken(AGAIN, self._columns - 1), *lines])
        self._lines = lines

    def end(self) -> None:
        """Go to the next line."""
        self._stream.write("\n")
        self._stream.flush()

    def _write(self, line: str, more: Sequence[str]) -> None:
        self._stream.write("\n".join([line, *more]))
        self._stream.flush()


def _moved(up: int, across: int) -> str:
    """Return what moves the cursor up and to a column, and erases all behind it."""
    above = f"{ESCAPE}{up}A" if up else ""
    return f"{above}\r{f'{ESCAPE}{across}C' if across else ''}{ESCAPE}J"


def broken(text: str, width: int, indent: int = 0) -> list[str]:
    """Return a text in lines of at most `width` cells, broken between words where possible.

    The first line begins `indent` cells later.
    """
    lines: list[str] = []
    room = max(width - indent, 1)
    for paragraph in text.split("\n"):
        line, used = "", 0
        for part in _PARTS.findall(paragraph):
            size = cell_len(part)
            if used and used + size > room:
                lines.append(line)
                line, used, room = "", 0, width
                if part.isspace():
                    continue
            *full, part = chop_cells(part, room) or [""]
            if full:
                lines += full
                room = width
            line, used = line + part, used + cell_len(part)
        lines.append(line)
        room = width
    return lines


def visible(text: str) -> str:
    """Return a text without what would control a terminal: a model may write anything."""
    return "".join(map(_visible, text.replace("\r\n", "\n").replace("\t", "    ")))


def _visible(letter: str) -> str:
    if letter.isprintable() or letter == "\n" or letter in JOINERS:
        return letter
    if unicodedata.category(letter) in ("Zs", "Zl", "Zp"):
        return " "
    return "\ufffd"
