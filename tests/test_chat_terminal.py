"""`ostinato chat` in a real terminal (tmux): streaming, Ctrl-C, kill -9, two models, a person."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tiny import save_tiny

from ostinato.flow import Turn, turns_of
from ostinato.journal import Journal

TMUX = shutil.which("tmux")
PATIENCE = 60.0  # seconds; torch alone may take ten to import
pytestmark = [
    pytest.mark.skipif(TMUX is None, reason="needs tmux"),
    pytest.mark.timeout(300),
]


class Terminal:
    """A terminal of 70 columns, whose shell runs in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._socket = str(folder / "tmux")
        path = os.pathsep.join([entry for entry in sys.path if entry])
        self._tmux("-f", os.devnull, "new-session", "-d", "-x", "70", "-y", "30", "bash --norc -i")
        self.type(f"set +H; PS1='$ '; export PYTHONPATH={shlex.quote(path)} TERM=xterm; clear")
        self.wait(lambda screen: screen.strip() == "$")

    def _tmux(self, *arguments: str) -> str:
        assert TMUX is not None
        command = [TMUX, "-S", self._socket, *arguments]
        return subprocess.run(
            command, check=True, capture_output=True, text=True, timeout=20, cwd=self.folder
        ).stdout

    def close(self) -> None:
        self._tmux("kill-server")

    def type(self, line: str) -> None:
        self._tmux("send-keys", "-l", line)
        self.press("Enter")

    def press(self, key: str) -> None:
        self._tmux("send-keys", key)

    def screen(self) -> str:
        return self._tmux("capture-pane", "-p")

    def wait(self, ready: Callable[[str], object], seconds: float = PATIENCE) -> str:
        """Return the screen once it is ready."""
        end = time.monotonic() + seconds
        while not ready(screen := self.screen()):
            assert time.monotonic() < end, screen
            time.sleep(0.03)
        return screen

    def chat(self, *arguments: str) -> None:
        """Start a chat; the shell writes its pid before, and its exit code after it."""
        line = shlex.join([sys.executable, "-m", "ostinato", "chat", "tiny", *arguments])
        (self.folder / "chat.sh").write_text(f"echo $$ > pid\nexec {line}\n")
        self.type("clear; bash chat.sh; echo exit=$?")

    def ended(self, code: int) -> str:
        return self.wait(lambda screen: f"exit={code}" in screen)


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Terminal]:
    save_tiny(tmp_path / "tiny")
    opened = Terminal(tmp_path)
    yield opened
    opened.close()


def prompted(screen: str) -> bool:
    return screen.rstrip().endswith("you>")


def turns(folder: Path, name: str) -> list[Turn]:
    with Journal(folder / ".ostinato" / "journal.db") as journal:
        return turns_of(journal.get(name).calls())


LONG = ("--max-new-tokens", "170", "--temperature", "1")


def test_answers_grow_and_are_drawn_again_where_a_part_is_taken_back(terminal: Terminal) -> None:
    (terminal.folder / "rules.toml").write_text(
        '[[check]]\nkind = "excludes"\ntexts = ["u", "k"]\nwhole = false\n'
    )
    terminal.chat("--run", "a", "--rules", "rules.toml", *LONG)
    terminal.wait(prompted)
    terminal.type("Hello")
    seen: set[str] = set()

    def done(screen: str) -> bool:
        seen.add(screen)
        return prompted(screen) and "  [" in screen

    last = terminal.wait(done)
    assert len(seen) > 3  # it was seen growing
    [turn] = turns(terminal.folder, "a")
    letters = [letter for letter in str(turn.answer) if letter.isascii() and letter.isalnum()]
    shown = last[last.index("tiny> ") + 6 : last.index("  [")]
    assert [each for each in shown if each.isascii() and each.isalnum()] == letters
    assert turn.answer.taken_back and "Took back " in last
    terminal.type("/why")
    assert "taken back: " in terminal.wait(lambda screen: "Turn 1: " in screen and prompted(screen))
    terminal.press("C-d")
    assert "To resume: ostinato runs resume a" in terminal.ended(0)


def interrupted(terminal: Terminal, name: str) -> None:
    """Start an answer, and wait until a part of it is there."""
    terminal.chat("--run", name, *LONG)
    terminal.wait(prompted)
    terminal.type("Hello")
    terminal.wait(lambda screen: len(screen.partition("tiny> ")[2].strip()) > 20)


def test_ctrl_c_and_kill_9_lose_nothing(terminal: Terminal) -> None:
    terminal.chat("--run", "whole", *LONG)
    terminal.wait(prompted)
    terminal.type("Hello")
    terminal.wait(lambda screen: prompted(screen) and "  [" in screen)
    terminal.press("C-c")  # at the prompt
    terminal.ended(130)
    expected = turns(terminal.folder, "whole")

    interrupted(terminal, "a")
    os.kill(int((terminal.folder / "pid").read_text()), signal.SIGTERM)
    assert "To resume: ostinato runs resume a" in terminal.ended(130)
    assert turns(terminal.folder, "a") == []

    interrupted(terminal, "b")
    os.kill(int((terminal.folder / "pid").read_text()), signal.SIGKILL)
    terminal.ended(137)
    for name in ("a", "b"):
        terminal.chat("--run", name)
        screen = terminal.wait(lambda screen: prompted(screen) and "  [" in screen)
        assert "you> Hello" in screen  # what was typed before
        assert turns(terminal.folder, name) == expected
        terminal.type("/quit")
        terminal.ended(0)
    terminal.chat("--run", "a")
    screen = terminal.wait(prompted)
    assert "you> Hello" in screen and "tiny> " in screen
    terminal.press("C-d")
    terminal.ended(0)


def test_ctrl_c_ends_an_answer_and_the_chat_goes_on(terminal: Terminal) -> None:
    interrupted(terminal, "a")
    terminal.press("C-c")
    terminal.wait(lambda screen: prompted(screen) and "[You stopped it." in screen)
    terminal.type("/why")
    terminal.wait(lambda screen: "Turn 1: You stopped it." in screen)
    (turn,) = turns(terminal.folder, "a")
    assert 0 < turn.answer.tokens < 170 and turn.answer.why == "You stopped it."
    terminal.press("C-c")  # at the prompt
    assert "To resume: ostinato runs resume a" in terminal.ended(130)


def test_two_models_talk(terminal: Terminal) -> None:
    arguments = ("--with", "tiny", "--turns", "4", "--opening", "Hi there!")
    terminal.chat(*arguments, "--max-new-tokens", "12", "--run", "a")
    screen = terminal.ended(0)
    assert "tiny (2)> Hi there!" in screen
    assert screen.count("tiny (1)> ") == 2 and screen.count("tiny (2)> ") == 3
    assert screen.count("  [") == 4
    assert "To go on: ostinato chat --from a --run NEW" in screen


def test_the_chat_waits_for_the_answer_of_a_person(terminal: Terminal) -> None:
    (terminal.folder / "rules.toml").write_text(
        '[[check]]\nkind = "contains"\ntexts = ["never"]\n'
        '[strategy]\nkind = "resample"\nrounds = 2\n'
    )
    arguments = ("--max-rounds", "2", "--max-new-tokens", "6")
    terminal.chat("--run", "a", "--rules", "rules.toml", *arguments)
    terminal.wait(prompted)
    terminal.type("Hello")
    screen = terminal.wait(lambda screen: "Answer with: ostinato runs answer a ANSWER" in screen)
    assert "2 drafts in a row have not passed the checks. A person answers." in screen
    with Journal(terminal.folder / ".ostinato" / "journal.db") as journal:
        journal.answer(journal.get("a"), "I am a person.")
    screen = terminal.wait(prompted)
    assert "tiny> I am a person." in screen and "[A person answered.]" in screen
    assert screen.count("A person answers.") == 1
    terminal.press("C-c")
    terminal.ended(130)
