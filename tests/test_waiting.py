"""What takes longer than about a second is told: in one line, once, and only to who listens."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner
from tiny import save_tiny

from ostinato import waiting as hints
from ostinato.cli.main import cli
from ostinato.waiting import listen, waiting


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    monkeypatch.setattr(hints, "AFTER", 0.0)
    monkeypatch.setattr(hints, "_told", set())
    lines: list[str] = []
    heard = threading.Event()

    def hear(line: str) -> None:
        lines.append(line)
        heard.set()

    listen(hear)
    monkeypatch.setattr(hints, "_heard", heard, raising=False)
    yield lines
    listen(None)


def test_a_line_is_told_once(told: list[str]) -> None:
    for _ in range(3):
        with waiting("Loading…"):
            hints._heard.wait(20)  # type: ignore[attr-defined]
    assert told == ["Loading…"]


def test_what_is_quick_and_what_nobody_hears_is_not_told(
    told: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hints, "AFTER", 600.0)
    before = threading.active_count()
    with waiting("Quick…"):
        assert threading.active_count() == before + 1
    listen(None)
    with waiting("Alone…"):
        assert not any(each.name == "Alone…" for each in threading.enumerate())
    assert told == []


def test_an_error_ends_the_wait(told: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hints, "AFTER", 600.0)
    with pytest.raises(ZeroDivisionError), waiting("Broken…"):
        raise ZeroDivisionError
    assert told == []


def test_a_command_says_that_a_model_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    save_tiny(Path("tiny"))

    class AtOnce:
        def __init__(self, after: float, tell: object, args: tuple[str, ...]) -> None:
            self.tell, self.args, self.daemon = tell, args, False

        def start(self) -> None:
            self.tell(*self.args)  # type: ignore[operator]

        def cancel(self) -> None: ...

    monkeypatch.setattr("ostinato.waiting.threading.Timer", AtOnce)
    for more, expected in (([], True), (["--quiet"], False), (["--json"], True)):
        monkeypatch.setattr(hints, "_told", set())
        words = ["generate", "Hi", "--model", "tiny", "--max-new-tokens", "1", *more]
        result = CliRunner().invoke(cli, words, catch_exceptions=False)
        assert ("Loading the model" in result.stderr) is expected
        if more == ["--json"]:
            first = json.loads(result.stderr.splitlines()[0])
            assert first["event"] == "note" and "Loading the model" in first["text"]
    assert hints._listeners == []
