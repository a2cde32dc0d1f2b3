"""`ostinato generate`: a text is written, printed again, interrupted, and gone on with."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from tiny import save_tiny

from ostinato.cli import generate as module
from ostinato.cli.generate import generate
from ostinato.errors import InputError
from ostinato.loop.journal import Journal


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    save_tiny(tmp_path / "tiny")
    return tmp_path


def call(*words: str) -> Result:
    asked = [
        "Your table",
        "--model",
        "tiny",
        "--max-new-tokens",
        "12",
        "--temperature",
        "1",
        *words,
    ]
    result = CliRunner().invoke(generate, asked)
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def test_a_finished_run_prints_its_whole_text_again_and_says_so() -> None:
    first = call("--run", "a")
    assert first.exit_code == 0 and "[12 tokens." in first.stderr
    assert first.stdout.strip()
    again = call("--run", "a")
    assert again.exit_code == 0 and again.stdout == first.stdout
    assert "[12 tokens. It has taken 12 steps, the limit. The run 'a' is finished.]" in again.stderr
    told = json.loads(call("--run", "a", "--json").stdout)
    assert told["text"] == first.stdout and len(told["tokens"]) == 12


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_exits_with_130_and_prints_the_whole_text_when_it_goes_on(
    number: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    calm = call()
    printed = module._print

    def interrupting(position: int, report: Any, show: bool) -> None:
        printed(position, report, show)
        if position == 5:
            os.kill(os.getpid(), number)

    monkeypatch.setattr(module, "_print", interrupting)
    cut = call("--run", "a")
    assert cut.exit_code == 130
    assert "The same command goes on." in cut.stderr
    assert len(cut.stdout) < len(calm.stdout) and calm.stdout.startswith(cut.stdout)
    monkeypatch.setattr(module, "_print", printed)
    assert Journal().get("a").status == "paused"
    rest = call("--run", "a")
    assert rest.exit_code == 0 and rest.stdout == calm.stdout
    assert "[12 tokens." in rest.stderr


def test_a_run_of_another_order_is_refused() -> None:
    call("--run", "a")
    with pytest.raises(InputError, match="begun with, got another seed"):
        call("--run", "a", "--seed", "4")
    with pytest.raises(InputError, match="got another each, alternatives"):
        call("--run", "a", "--each", "Past('entropy', above=9)")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--plain", "--system", "Be kind."], "--system must be given without --plain"),
        (["--seed", "-1"], "A seed must be a whole number from 0"),
        (["--seed", str(1 << 63)], "A seed must be a whole number from 0"),
    ],
)
def test_bad_words_are_refused_before_the_model_is_loaded(words: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        call("--model", "no such model", *words)
