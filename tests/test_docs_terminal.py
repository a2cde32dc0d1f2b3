"""The picture of a terminal shows what a terminal would."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from recipes.site.screen import Screen
from recipes.site.terminal import COMMAND, HOLD, START, frames, svg

PICTURE = Path(__file__).parents[1] / "docs" / "images" / "refine.svg"


def shown(text: str) -> list[str]:
    screen = Screen()
    screen.write(text)
    return ["".join(cell.char for cell in line) for line in screen.lines()]


def test_a_line_of_progress_replaces_the_one_before() -> None:
    assert shown("one\r\ntwo\r\x1b[2Kthree\x1b[1A\r\x1b[2Kfour\r\n") == ["four", "three"]


def test_a_style_lasts_until_it_is_reset() -> None:
    screen = Screen()
    screen.write("\x1b[1mA\x1b[9;31mB\x1b[0mC")
    assert [cell.style for cell in screen.lines()[0]] == ["1", "1;9;31", ""]


def test_an_unknown_sequence_is_refused() -> None:
    with pytest.raises(ValueError, match="known, got 5D"):
        Screen().write("\x1b[5D")


def test_pictures_follow_one_another_and_loading_is_short() -> None:
    written = [(0.5, "0 of 8\r"), (4.0, "\x1b[2K\x1b[9;31mtext <\x1b[0m\r\n1 of 8"), (6.0, " done")]
    pictures = frames(iter(written))
    assert [picture.at for picture in pictures] == [0.0, START, START + 2]
    picture = svg(pictures)
    assert picture.count("<g ") == 3 and "text &lt;" in picture and 'class="s r"' in picture
    assert f"{START + 2 + HOLD:.2f}s step-end" in picture


def test_the_committed_picture_is_of_the_command_that_the_script_runs() -> None:
    picture = PICTURE.read_text("utf-8")
    assert COMMAND in picture and len(picture) < 40_000
    (end,) = set(re.findall(r"\d of 8 accepted [^<]*", picture))
    assert end.startswith("8 of 8 accepted")
