"""`ostinato generate`: speculation gives the same text, beam search the most likely one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from tiny import save_tiny

from ostinato.cli.generate import generate
from ostinato.errors import InputError


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    save_tiny(tmp_path / "tiny")
    return tmp_path


def call(*words: str) -> Result:
    arguments = ["Your table", "--model", "tiny", "--max-new-tokens", "10", *words]
    result = CliRunner().invoke(generate, arguments)
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def json_of(*words: str) -> Any:
    return json.loads(call(*words, "--json").stdout)


def test_speculation_does_not_change_the_text() -> None:
    plain = json_of()
    assert json_of("--prompt-lookup", "4") == plain
    assert json_of("--draft-model", "tiny") == plain
    assert json_of("--temperature", "0", "--prompt-lookup", "2") == json_of("--temperature", "0")


def test_a_run_resumes_with_and_without_speculation() -> None:
    first = call("--run", "a", "--prompt-lookup", "3")
    again = call("--run", "a")
    assert again.stdout == first.stdout and "is finished" in again.stderr


def test_beams_print_the_best_text_and_with_show_each_step() -> None:
    printed = call("--num-beams", "3", "--plain")
    assert printed.stdout.strip() and "[10 tokens." in printed.stderr
    shown = call("--num-beams", "3", "--plain", "--show").stdout.splitlines()
    assert len(shown) == 10 and repr(printed.stdout) in shown[-1]
    assert json_of("--num-beams", "3", "--plain")["text"] == printed.stdout
    with pytest.raises(InputError, match=r"--length-penalty was 1\.0, is 0\.0"):
        call("--run", "b", "--num-beams", "3")
        call("--run", "b", "--num-beams", "3", "--length-penalty", "0")


def test_only_one_of_them_is_taken() -> None:
    with pytest.raises(
        InputError, match="--prompt-lookup, --draft-model and --num-beams must be given alone"
    ):
        call("--prompt-lookup", "2", "--num-beams", "2")
