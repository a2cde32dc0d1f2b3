"""A text that grows and shrinks is drawn as it is, in terminals of any width."""

from __future__ import annotations

import io
import random

import pytest
from rich.cells import cell_len

from ostinato.cli.chat.redraw import AGAIN, Redraw, broken, visible

LABEL = "bot> "


class Screen:
    """The little of a terminal that a redraw uses: `lines` of `columns`, scrolled from above."""

    def __init__(self, columns: int, lines: int) -> None:
        self._columns, self._lines = columns, lines
        self.rows: list[list[str]] = [[]]
        self._y = self._x = 0

    def feed(self, text: str) -> None:
        at = 0
        while at < len(text):
            if text[at] == "\x1b":
                end = next(n for n in range(at + 2, len(text)) if text[n].isalpha())
                self._control(text[end], int(text[at + 2 : end] or 1))
                at = end + 1
                continue
            self._put(text[at])
            at += 1

    def _control(self, kind: str, number: int) -> None:
        if kind == "A":
            self._y = max(len(self.rows) - self._lines, self._y - number, 0)
        elif kind == "C":
            self._x += number
        else:
            assert kind == "J"
            del self.rows[self._y][self._x :], self.rows[self._y + 1 :]

    def _put(self, letter: str) -> None:
        if letter == "\n":
            self._y, self._x = self._y + 1, 0
            if self._y == len(self.rows):
                self.rows.append([])
        elif letter == "\r":
            self._x = 0
        else:
            row = self.rows[self._y]
            row[self._x : self._x + 1] = [letter, *[""] * (cell_len(letter) - 1)]
            self._x += cell_len(letter)
            assert self._x < self._columns  # the terminal breaks no line itself

    def text(self) -> list[str]:
        return ["".join(row).rstrip() for row in self.rows]


def grown(rng: random.Random, text: str) -> str:
    """Return a text after a step: something is taken back, or comes."""
    if rng.random() < 0.25:
        text = text[: rng.randint(0, len(text))]
    parts = ["a", "bb ", " ", "\n", "中", "wordy ", "x" * rng.randint(1, 30), ". "]
    return text + "".join(rng.choices(parts, k=rng.randint(0, 4)))


def test_what_is_drawn_is_the_text() -> None:
    rng = random.Random(1)
    for _ in range(200):
        columns = rng.randint(20, 40)
        screen, stream, text = Screen(columns, 99), io.StringIO(), ""
        drawing = Redraw(stream, columns, 99, LABEL, cell_len(LABEL))
        for _ in range(40):
            text = grown(rng, text)
            drawing.show(text)
            screen.feed(stream.getvalue())
            stream.seek(0)
            stream.truncate()
            first, *more = broken(text, columns - 1, len(LABEL))
            assert screen.text() == [line.rstrip() for line in (LABEL + first, *more)]


def test_a_text_that_only_grows_moves_no_cursor() -> None:
    stream = io.StringIO()
    drawing = Redraw(stream, 30, 5)
    for text in ("One", "One two", "One two\nthree"):
        drawing.show(text)
    drawing.end()
    assert stream.getvalue() == "One two\nthree\n"


def test_lines_that_have_left_the_screen_are_written_again() -> None:
    screen, stream = Screen(20, 4), io.StringIO()
    drawing = Redraw(stream, 20, 4, LABEL, len(LABEL))
    drawing.show("\n".join(f"line {number}" for number in range(9)))
    drawing.show("line 0\nother")
    drawing.show("line 0\nother\nend")
    screen.feed(stream.getvalue())
    told = [line.rstrip() for line in broken(AGAIN, 19)]
    assert screen.text()[9:] == [*told, "line 0", "other", "end"]
    assert screen.text()[0] == "bot> line 0"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\x1b[2Jb", "a\ufffd[2Jb"),
        ("a\r\nb\tc\rd", "a\nb    c\ufffdd"),
        ("\u202eabc\x07", "\ufffdabc\ufffd"),
        ("👩\u200d🔬 中\u00a0ß", "👩\u200d🔬 中 ß"),
    ],
)
def test_a_model_cannot_control_the_terminal(text: str, shown: str) -> None:
    assert visible(text) == shown


def test_lines_are_broken_between_words() -> None:
    assert broken("one two three", 8) == ["one two ", "three"]
    assert broken("one two", 9, 5) == ["one ", "two"]
    assert broken("longwordhere x", 5) == ["longw", "ordhe", "re x"]
    assert broken("中文字符号", 5) == ["中文", "字符", "号"]
    assert broken("a\n\nb\n", 5) == ["a", "", "b", ""]
