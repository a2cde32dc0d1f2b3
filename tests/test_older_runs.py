"""Runs of older versions: listed, shown and read; their commands are told, and never run."""

from __future__ import annotations

import json
import shlex
import sqlite3
from pathlib import Path

import pytest
from click.testing import CliRunner

from ostinato.cli.main import cli
from ostinato.errors import InputError, RunError
from ostinato.journal import JSON, Journal

COMMANDS = {
    "train-small": "train text a.txt --out small --steps 4 --layers 1 --width 16 --heads 2 "
    "--context 16 --vocab-size 270 --batch-tokens 128 --warmup-steps 2 --checkpoint-every 2",
    "train-images": "train image digits-8x8 --out images --channels 16 --batch-size 32 --steps 2 "
    "--checkpoint-every 2",
    "words": "generate 'Your table' --model tiny --max-new-tokens 8 --run words",
    "picture": "sample image images --count 1 --steps 2 --run picture --out p.png",
    "mail": "refine mail.toml --limit 1 --seed 3",
}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Write the journal that an older version has left in a working folder."""
    monkeypatch.chdir(tmp_path)
    Path(".ostinato").mkdir()
    with sqlite3.connect(".ostinato/journal.db") as connection:
        data = Path(__file__).parent / "data/journal-of-commands.sql"
        connection.executescript(data.read_text("utf-8"))
    connection.close()
    return tmp_path


def output_of(line: str) -> str:
    result = CliRunner().invoke(cli, shlex.split(line))
    assert result.exit_code == 0, (result.output, result.exception)
    return result.output


def refused(line: str) -> str:
    error = CliRunner().invoke(cli, shlex.split(line)).exception
    assert isinstance(error, InputError | RunError), error
    return str(error)


def test_they_are_listed_and_their_results_are_read() -> None:
    listed = output_of("runs")
    assert all(f"{name}  " in listed for name in COMMANDS)
    with Journal() as journal:
        (key, row), *others = journal.get("mail").results()
        assert (key, row["accepted"], others) == ("m1", True, [])
        assert len(next(iter(journal.get("picture").results()))[1]["output"]) == 1
        assert [step.tick for step in journal.get("train-small").steps()] == [1, 2, 3, 4]
        assert len(list(journal.get("words").steps())) == 8


@pytest.mark.parametrize("name", COMMANDS)
def test_they_are_shown_with_their_command(name: str) -> None:
    assert f"ostinato {COMMANDS[name]}" in output_of(f"runs show {name}")
    assert json.loads(output_of(f"runs show {name} --json"))["config"] is None


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("status", ["stopped", "interrupted"])
@pytest.mark.parametrize("options", ["", " --trust"])
def test_their_command_is_told_and_never_run(name: str, status: str, options: str) -> None:
    if status == "interrupted":
        with sqlite3.connect(".ostinato/journal.db") as connection:
            connection.execute("UPDATE runs SET status = 'running', stopped = NULL")
        connection.close()
    before = sorted(Path(".").rglob("*"))
    sentence = refused(f"runs resume {name}{options}")
    assert "by an older version" in sentence
    assert sentence.endswith(f"ostinato {COMMANDS[name]}")
    assert sorted(Path(".").rglob("*")) == before


def test_the_outcome_of_their_items_is_explained() -> None:
    assert output_of("why mail").startswith("mail: 1 item done.")
    assert output_of("why mail m1").startswith("m1: accepted.")


@pytest.mark.parametrize("begun", [["rm", "-rf"], {"command": "fill x; rm -rf"}, {"command": 3}])
def test_what_is_no_command_is_not_shown(begun: object) -> None:
    with sqlite3.connect(".ostinato/journal.db") as connection:
        connection.execute("UPDATE runs SET spec = ?", (json.dumps({"begun": begun}),))
    connection.close()
    for name in COMMANDS:
        assert "resume with Python: " in output_of(f"runs show {name}")
        assert "only from Python" in refused(f"runs resume {name}")


def test_a_run_of_a_newer_version_is_shown_and_says_what_to_do() -> None:
    spec: dict[str, JSON] = {"config": {"text": "a ___", "model": "m", "colour": 1}}
    with Journal() as journal:
        journal.create("later", kind="fill", spec=spec)
    shown = output_of("runs show later")
    assert "must have no other fields, got colour" in shown
    assert "resume with ostinato runs resume later\n" in shown
    assert "upgrade with pip install --upgrade ostinato" in refused("runs resume later")
    assert "later  " in output_of("runs")
