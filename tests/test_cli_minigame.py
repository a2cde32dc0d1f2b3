"""The mini-game at a terminal: keys are pressed at a pseudo-terminal, and the screen is read."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("gymnasium")
pty = pytest.importorskip("pty")

from pseudo_terminal import Terminal, opened_terminal  # noqa: E402

from ostinato.cli.keyboard import keys_of, shows_colors  # noqa: E402
from ostinato.cli.main import cli  # noqa: E402
from ostinato.cli.minigame.by_hand import play_by_hand  # noqa: E402
from ostinato.errors import InputError  # noqa: E402
from ostinato.journal import Journal  # noqa: E402
from ostinato.reward.minigame import RIVER  # noqa: E402


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Terminal]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TERM", "xterm")
    for name in ("COLUMNS", "LINES", "COLORTERM"):
        monkeypatch.delenv(name, raising=False)
    with opened_terminal() as opened:
        yield opened


def test_a_person_steers_pauses_and_leaves(terminal: Terminal) -> None:
    before = terminal.mode

    def script(to: Terminal) -> None:
        to.wait_for("300 to go")
        to.press("p")
        to.wait_for("Paused")
        to.press("x\x1b[D")
        to.wait_for("◀▌")  # it goes left
        to.press("d")
        to.wait_for("▐▶")
        to.press("q")

    terminal.typing(script)
    with terminal.used():
        assert play_by_hand(RIVER, seed=1, speed=3.0) == 0
    terminal.wait_for("You left the game")
    assert re.search(r"You left the game\. Score \d+: .* in \d+ rows\.", terminal.shown)
    assert terminal.shown.rindex("\x1b[?25h") > terminal.shown.rindex("to go")  # the cursor is back
    assert terminal.mode == before


def test_a_game_is_played_to_its_end(terminal: Terminal) -> None:
    with terminal.used():
        assert (
            play_by_hand(RIVER, seed=1, speed=300.0) == 0
        )  # nobody steers: it soon loses its hearts
    terminal.wait_for("planner")
    assert re.search(r"The game is over\. Score \d+: .* 3 hits", terminal.shown)
    assert re.search(r"A planner that sees as far collects \d+\.", terminal.shown)


def test_a_person_teaches_leaves_and_goes_on(terminal: Terminal) -> None:
    words = ["teach", "--policy", "none", "--speed", "30", "--run", "mine"]

    def script(to: Terminal) -> None:
        to.wait_for("295 to go")
        to.press("+")
        to.wait_for("1 press ")
        to.press("\x1b[B")
        to.wait_for("2 presses  bad")
        to.press("q")

    terminal.typing(script)
    with terminal.used(), pytest.raises(SystemExit) as left:
        cli(words, standalone_mode=False)
    assert left.value.code == 0
    with Journal() as journal:
        run = journal.find("mine")
        assert run is not None and run.status == "paused"
        pressed = [event.data["press"] for event in run.events() if event.name == "change"]
        tick = run.tick
    assert pressed == [1, -1]

    terminal.shown = ""

    def again(to: Terminal) -> None:
        to.wait_for("2 presses ")
        to.press("q")

    terminal.typing(again)
    with terminal.used(), pytest.raises(SystemExit):
        cli(words, standalone_mode=False)
    with Journal() as journal:
        run = journal.find("mine")
        assert run is not None and run.tick > tick
    assert "2 presses in" in terminal.shown


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("TERM", "dumb", "TERM must name a terminal whose cursor can be moved, got 'dumb'"),
        ("COLUMNS", "20", "The terminal must have at least 26 columns and 14 lines, got 20 and"),
    ],
)
def test_a_terminal_that_is_no_good_is_named(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch, name: str, value: str, told: str
) -> None:
    monkeypatch.setenv(name, value)
    with terminal.used(), pytest.raises(InputError, match=told):
        play_by_hand(RIVER, seed=1, speed=30.0)
    assert terminal.shown == ""


def test_keys_are_read_as_terminals_send_them() -> None:
    assert keys_of("aQ\x1b[A\x1bOD\r+") == (["a", "q", "up", "left", "enter", "+"], "")
    assert keys_of("a\x1b[") == (["a"], "\x1b[")  # the rest is still on its way
    assert keys_of("\x1b[C") == (["right"], "")
    assert keys_of("\x1bx\x00é") == (["x", "é"], "")


def test_colors_are_for_terminals_that_have_them_and_users_that_want_them() -> None:
    assert shows_colors({"TERM": "xterm-256color"})
    assert not shows_colors({"TERM": "xterm"})
    assert not shows_colors({"TERM": "xterm-256color", "NO_COLOR": "1"})


def test_options_that_a_person_s_game_does_not_have_are_refused() -> None:
    for words in (["--gif", "a.gif"], ["--episodes", "2"], ["--run", "mine"]):
        with pytest.raises(InputError, match=f"{words[0]} must be left out with --human"):
            cli(["play", RIVER, "--human", *words], standalone_mode=False)
    with pytest.raises(InputError, match=r"must be ostinato/River-v0, got 'CartPole-v1'"):
        cli(["play", "CartPole-v1", "--human"], standalone_mode=False)
    with pytest.raises(InputError, match="--json must come with --auto"):
        cli(["teach", "--json"], standalone_mode=False)
