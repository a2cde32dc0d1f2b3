"""`generate` in a classroom: a token for each key of a pseudo-terminal, a pace, temperatures."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from tiny import save_tiny

pytest.importorskip("pty")

from pseudo_terminal import Terminal, opened_terminal

from ostinato.cli import text_steps
from ostinato.cli.main import cli
from ostinato.cli.token_columns import TokenColumn, candidates, side_by_side
from ostinato.errors import InputError
from ostinato.journal import Journal

WORDS = ["generate", "Your table", "--model", "tiny", "--max-new-tokens", "6"]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TERM", "xterm")
    for name in ("COLUMNS", "LINES"):
        monkeypatch.delenv(name, raising=False)
    save_tiny(tmp_path / "tiny")
    return tmp_path


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    with opened_terminal() as opened:
        yield opened


def call(*words: str) -> Result:
    result = CliRunner().invoke(cli, [*WORDS, *words])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def stepped(terminal: Terminal, *words: str) -> int:
    """Run the command at a terminal; return its exit code."""
    with terminal.used(), pytest.raises(SystemExit) as end:
        cli([*WORDS, *words], standalone_mode=False)
    return int(end.value.code or 0)


# A token for each key -----------------------------------------------------------------------------


def test_each_key_draws_one_token_whose_candidates_were_shown(terminal: Terminal) -> None:
    calm = call("--run", "calm")

    def script(to: Terminal) -> None:
        for number in range(1, 7):
            to.wait_for(f"token {number} ")
            assert f"token {number + 1} " not in to.shown
            to.press(" " if number % 2 else "\r")

    terminal.typing(script)
    assert stepped(terminal, "--step", "--run", "a") == 0
    terminal.wait_for(r"\[\?1049l")
    steps = [report for step in Journal().get("a").steps() for report in reports(step.report)]
    assert len(steps) == 6
    for report in steps:
        text, model, drawn = report["alternatives"][0]
        row = f"{json.dumps(text, ensure_ascii=False)}".replace("\\", "\\\\")
        assert f"{model:.1%}" in terminal.shown and f"{drawn:.1%}" in terminal.shown, row
    assert texts("a") == texts("calm") and calm.stdout.strip()
    assert "temperature 0.7, top-k 50" in terminal.shown


def reports(report: Any) -> Iterator[Any]:
    for lane in report["lanes"].values():
        yield lane["report"]


def texts(run: str) -> list[str]:
    return [row["output"] for _, row in Journal().get(run).results()]


def test_q_ends_and_the_run_goes_on_later(terminal: Terminal) -> None:
    before = terminal.mode

    def script(to: Terminal) -> None:
        to.wait_for("token 1 ")
        to.press("x ")  # a key without a meaning, then one token
        to.wait_for("token 2 ")
        to.press("q")

    terminal.typing(script)
    assert stepped(terminal, "--step", "--run", "a") == 130
    assert Journal().get("a").status == "paused" and terminal.mode == before
    assert terminal.shown.rindex("\x1b[?25h") > terminal.shown.rindex("token 2 ")
    whole = call("--run", "a", "--show")
    assert whole.exit_code == 0 and whole.stdout.count("nats") == 6
    call("--run", "b")
    assert texts("a") == texts("b")


def test_a_resumed_text_stands_on_the_screen(terminal: Terminal) -> None:
    for part in range(2):

        def script(to: Terminal, at: int = 1 + 2 * part) -> None:
            to.wait_for(f"token {at} ")
            to.press(" ")
            to.wait_for(f"token {at + 1} ")
            to.press("q" if at == 1 else " " * 9)

        terminal.typing(script)
        assert stepped(terminal, "--step", "--run", "a") == (0 if part else 130)
    call("--run", "b")
    assert texts("a") == texts("b")


def test_with_a_pace_the_screen_goes_on_by_itself(terminal: Terminal) -> None:
    assert stepped(terminal, "--step", "--pace", "0.01", "--run", "a") == 0
    assert all(f"token {number} " in terminal.shown for number in range(1, 7))


def test_columns_are_stepped_side_by_side(terminal: Terminal) -> None:
    def script(to: Terminal) -> None:
        to.wait_for("token 1 .*token 1 ")
        to.press(" ")
        to.wait_for("token 2 .*token 2 ")
        to.press("q")

    terminal.typing(script)
    assert stepped(terminal, "--step", "--temperatures", "0.2", "2") == 130
    terminal.wait_for("It was left")
    assert re.search(r"temperature 0\.2, top-k 50 +temperature 2, top-k 50", terminal.shown)


# A pace -------------------------------------------------------------------------------------------


def test_a_pace_waits_between_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    now, slept = [100.0], []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        now[0] += seconds

    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr(time, "sleep", sleep)
    paced = call("--pace", "2")
    assert sum(slept) == pytest.approx(10)  # six tokens: none before the first
    assert max(slept) <= text_steps.LOOK
    monkeypatch.undo()
    assert paced.stdout


# Temperatures -------------------------------------------------------------------------------------


def test_temperatures_write_what_each_writes_alone() -> None:
    shown = json.loads(call("--temperatures", "0", "0.7", "2", "--json").stdout)
    assert [each["temperature"] for each in shown] == [0, 0.7, 2] and not Path(".ostinato").exists()
    for each in shown:
        alone = json.loads(call("--temperature", str(each["temperature"]), "--json").stdout)
        assert each["text"] == alone["text"] and each["stopped"] == alone["stopped"]
    first = [each["tokens"][0]["alternatives"][0] for each in shown]
    assert first[0][1] == first[1][1] == first[2][1]  # before the temperature
    assert first[0][2] == 1 > first[1][2] > first[2][2]  # after it


def test_columns_fill_the_width_of_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    for width in (60, 110):
        monkeypatch.setenv("COLUMNS", str(width))
        lines = call("--temperatures", "0.2,2").stdout.splitlines()
        assert max(map(len, lines)) <= width
        assert lines[0].index("temperature 2") == (width - 3) // 2 + 3
        assert any(
            re.match(r"token 1 +model +drawn.*token 1 +model +drawn", line) for line in lines
        )


def test_wide_letters_and_signs_of_control_keep_the_columns_straight() -> None:
    one = TokenColumn("a", text="天地玄黄宇宙洪荒" * 4 + "\x1b[31m")
    lines = side_by_side([one, TokenColumn("b", text="plain")], 60)
    assert "\x1b" not in "".join(lines)
    assert lines[2].endswith("plain") and lines[2].startswith("天地玄黄")
    report = {"alternatives": [["\x07天", 0.5, 0.75], ["", 0.25, 0.25]]}
    rows = candidates(3, report, 60)
    assert "(end)" in rows[2] and "\x07" not in rows[1]
    assert re.search(r"others +25\.0% +0\.0%", rows[3])
    assert rows[1].count("█") > 2 * rows[2].count("█") > 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--step", "standard input must be a terminal, got a pipe or a file. Leave out --step"),
        ("--step --json", "--step must be given without --json"),
        ("--pace 1 --json", "--pace must be given without --json"),
        ("--step --show", "--step must be given without --show"),
        ("--step --num-beams 2", "--step must be given without --num-beams"),
        ("--temperatures 1", "--temperatures must be two or more numbers, got '1'"),
        ("--temperatures warm", "--temperatures must be two or more numbers, got 'warm'"),
        ("--temperatures 1 200", "--temperatures must be a number from 0 to 100, got 200"),
        ("--temperatures 1 nan", "--temperatures must be a number from 0 to 100, got nan"),
        ("--temperatures 1 2 --run a", "--temperatures must be given without --run"),
        ("--temperatures 1 2 --temperature 1", "without --temperature, got both"),
        ("--temperatures 1 2 --show", "--temperatures must be given without --show"),
        ("--temperatures 1 2 --pace 1", "--pace must be given with --step"),
        ("--temperatures 1 2 3 4", "must have at least 105 columns for 4 temperatures, got 80"),
    ],
)
def test_what_cannot_be_shown_is_refused(words: str, message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        call(*words.split())


def test_a_server_has_no_probabilities_to_compare() -> None:
    words = ["--model", "http://127.0.0.1:9/v1#m", "--temperatures", "1", "2"]
    with pytest.raises(InputError, match="--temperatures must be given with a model in this proc"):
        call(*words)


def test_a_pace_is_above_zero() -> None:
    result = call("--pace", "0")
    assert result.exit_code == 2 and "--pace" in result.stderr


def test_the_prompt_may_follow_the_temperatures() -> None:
    words = ["generate", "--temperatures", "0.2", "2", "Your table", *WORDS[2:], "--json"]
    after = CliRunner().invoke(cli, words)
    assert json.loads(after.stdout) == json.loads(
        call("--temperatures", "0.2", "2", "--json").stdout
    )
