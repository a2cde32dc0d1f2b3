"""The screen of a terminal: as much of its control sequences as our commands write."""

from __future__ import annotations

import re
from typing import NamedTuple

SEQUENCE = re.compile(r"\x1b\[([?0-9;]*)([A-Za-z])|(\r)|(\n)|([^\x1b\r\n]+)")


class Cell(NamedTuple):
    """A character and its style: SGR codes, joined by semicolons."""

    char: str
    style: str


class Screen:
    """Lines of cells and a cursor. It does not scroll and does not wrap."""

    def __init__(self) -> None:
        self._lines: list[list[Cell]] = [[]]
        self._row, self._column = 0, 0
        self._style: tuple[str, ...] = ()

    def lines(self) -> tuple[tuple[Cell, ...], ...]:
        """Return what is shown, without empty lines at the end."""
        shown = [tuple(line) for line in self._lines]
        while shown and not any(cell.char.strip() for cell in shown[-1]):
            shown.pop()
        return tuple(shown)

    def write(self, text: str) -> None:
        """Take what a program writes. Raises `ValueError` for a sequence that it does not know."""
        for values, command, back, down, plain in SEQUENCE.findall(text):
            if command:
                self._control(values, command)
            elif back:
                self._column = 0
            elif down:
                self._move(1)
            else:
                self._put(plain)

    def _put(self, text: str) -> None:
        line = self._lines[self._row]
        line += [Cell(" ", "")] * (self._column - len(line))
        style = ";".join(self._style)
        line[self._column : self._column + len(text)] = [Cell(char, style) for char in text]
        self._column += len(text)

    def _move(self, rows: int) -> None:
        self._row = max(0, self._row + rows)
        while len(self._lines) <= self._row:
            self._lines.append([])

    def _control(self, values: str, command: str) -> None:
        if command == "m":
            codes = values.split(";")
            self._style = () if codes[-1] in ("", "0") else (*self._style, *codes)
        elif command == "K":
            self._lines[self._row] = []
        elif command == "A":
            self._move(-int(values or 1))
        elif command not in "hl":  # whether the cursor is shown
            raise ValueError(f"The sequence must be known, got {values}{command}. Add it here.")
