"""Chats killed with SIGKILL at random moments end as undisturbed ones, and lose no move."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from killable_chats import MOVES
from tiny import save_tiny

from ostinato.flow import Turn, turns_of
from ostinato.journal import Journal, Run
from ostinato.testing import Forks

SLOW = (pytest.mark.slow, pytest.mark.timeout(900))

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")


@pytest.fixture(scope="module")
def forks() -> Iterator[Forks]:
    with Forks("killable_chats") as opened:
        yield opened


class Killed:
    """Drives a chat in processes that are killed."""

    def __init__(self, forks: Forks, folder: Path, arguments: list[str]) -> None:
        folder.mkdir()
        self.journal, self._output = folder / "journal.db", folder / "output.txt"
        self._forks, self._arguments = forks, arguments

    def drive(self, seconds: float) -> bool:
        """Run on for so long; return whether the chat has ended. What was recorded stays."""
        before = self.calls()
        arguments = ["killable_chats:make", str(self.journal), *self._arguments]
        child = self._forks.spawn(arguments, self._output)
        code = child.wait(seconds)
        if code is None:
            child.kill()
            child.wait(10)
        assert code in (None, 0), self._output.read_text()[-3000:]
        after = self.calls()
        assert {path: after.get(path) for path in before} == before
        return code == 0

    def calls(self) -> dict[str, object]:
        """Return what is recorded, clocks excepted."""
        if not self.journal.exists():
            return {}
        with Journal(self.journal) as journal:
            run = journal.find("run")
            return {} if run is None else calls_of(run)

    def turns(self) -> list[Turn]:
        with Journal(self.journal) as journal:
            run = journal.get("run")
            assert run.status == "stopped", run.status
            return turns_of(run.calls())


def calls_of(run: Run) -> dict[str, object]:
    return {call.path: (call.arguments, _without_clock(call.answer)) for call in run.calls()}


def _without_clock(value: object) -> object:
    if isinstance(value, dict):
        return {name: _without_clock(each) for name, each in value.items() if name != "seconds"}
    return value


def check_kills(forks: Forks, tmp_path: Path, kills: int, *arguments: str) -> list[Turn]:
    rng = random.Random(5)
    whole = Killed(forks, tmp_path / "whole", list(arguments))
    assert whole.drive(60)
    expected, turns = whole.calls(), whole.turns()
    done = number = 0
    while done < kills:
        number += 1
        killed = Killed(forks, tmp_path / f"killed{number}", list(arguments))
        while done < kills and not killed.drive(rng.uniform(0.1, 0.9)):
            done += 1
        killed.drive(60)
        assert killed.calls() == expected
        assert killed.turns() == turns
    return turns


@pytest.mark.parametrize("kills", [4, pytest.param(60, marks=SLOW)])
def test_a_persons_chat_is_killed(forks: Forks, tmp_path: Path, kills: int) -> None:
    model = save_tiny(tmp_path / "tiny")
    turns = check_kills(forks, tmp_path, kills, f"model={model}")
    assert any(turn.answer.memory is not None for turn in turns)  # turns have left the memory
    assert {turn.answer.source for turn in turns} == {"model", "rule"}
    assert any(turn.answer.taken_back for turn in turns)
    assert len(turns) < len(MOVES) - 1  # some were taken back


@pytest.mark.parametrize("kills", [3, pytest.param(40, marks=SLOW)])
def test_a_chat_of_two_models_is_killed(forks: Forks, tmp_path: Path, kills: int) -> None:
    model, partner = save_tiny(tmp_path / "tiny"), save_tiny(tmp_path / "other")
    turns = check_kills(forks, tmp_path, kills, f"model={model}", f"partner={partner}")
    assert len(turns) == 14
