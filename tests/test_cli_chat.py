"""`ostinato chat` without a terminal: a pipe says what is typed, answers are printed whole."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from tiny import save_tiny

from ostinato.cli.main import cli
from ostinato.flow import turns_of
from ostinato.journal import Journal

RULES = """
model = "smollm2"
[[rule]]
name = "bye"
column = "message"
pattern = 'bye'
reply = "Goodbye."

[[check]]
kind = "excludes"
texts = ["u"]
whole = false

[[check]]
kind = "contains"
column = "asked"
"""


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    save_tiny(tmp_path / "tiny")
    (tmp_path / "rules.toml").write_text(RULES)


def chat(*arguments: str, typed: str | Sequence[str] = ()) -> Result:
    text = typed if isinstance(typed, str) else "".join(f"{line}\n" for line in typed)
    command = ["chat", "tiny", "--max-new-tokens", "6", *arguments]
    return CliRunner().invoke(cli, command, input=text, catch_exceptions=False)


def go_on(name: str, *arguments: str, typed: Sequence[str] = ()) -> Result:
    """Resume a chat by its name alone."""
    text = "".join(f"{line}\n" for line in typed)
    return CliRunner().invoke(cli, ["chat", "--run", name, *arguments], input=text)


def said(name: str) -> list[str]:
    with Journal(Path(".ostinato/journal.db")) as journal:
        return [turn.said for turn in turns_of(journal.get(name).calls())]


def answers(name: str) -> list[str]:
    with Journal(Path(".ostinato/journal.db")) as journal:
        return [str(turn.answer) for turn in turns_of(journal.get(name).calls())]


def test_what_is_typed_is_answered_and_goes_on(tmp_path: Path) -> None:
    result = chat("--run", "a", "--system", "Be kind.", typed=["Hello", "", "//odd", "And you?"])
    assert result.exit_code == 0, result.output
    assert said("a") == ["Hello", "/odd", "And you?"]
    assert len(result.stdout) > 3 and "To resume: ostinato runs resume a" in result.stderr
    assert result.stderr.count("  [") == 3
    again = go_on("a", typed=["Now"])  # options that are left out are as before
    assert again.exit_code == 0, again.output
    assert said("a") == ["Hello", "/odd", "And you?", "Now"]
    assert again.stderr.count("  [") == 1
    resumed = CliRunner().invoke(cli, ["runs", "resume", "a"], input="More\n")
    assert resumed.exit_code == 0, resumed.output
    assert said("a")[-1] == "More"
    wrong = go_on("a", "--system", "Be brief.")
    assert wrong.exit_code == 2 if wrong.exception is None else wrong.exception
    assert "--system was Be kind., is Be brief." in str(wrong.exception)


def test_commands_with_a_slash() -> None:
    typed = [
        "/back",
        "/why",
        "/help",
        "Hello",
        "/retry",
        "And you?",
        "/why 1",
        "/back 3",
        "/back x",
    ]
    typed += [
        "/back",
        "/brunch",
        "/branch",
        "/branch other",
        "/branch other",
        "/save",
        "/save t.jsonl",
    ]
    result = chat("--run", "a", typed=[*typed, "/quit", "never read"])
    assert result.exit_code == 0, result.output
    told = result.stderr
    assert told.count("Nothing has been answered yet.") == 2
    assert "/retry" in told and "another answer to what you said last" in told
    assert "Turn 1: " in told and "1 round, went back 0 times; 6 tokens in the answer" in told
    assert told.count("/back takes a number from 1 to 2.") == 2
    assert "Took back 1 turn. The last one is now: Hello" in told
    assert "There is no command /brunch. Did you mean '/branch'? See /help" in told
    assert "/branch needs a name" in told
    assert "Made other, which goes on after turn 1: ostinato runs resume other" in told
    assert "The name of a run must be new" in told
    assert "/save needs a file" in told and "Wrote 1 turn to t.jsonl." in told
    assert said("a") == said("other") == ["Hello"]
    assert json.loads(Path("t.jsonl").read_text())["run"] == "a"
    other = go_on("other", typed=["And they?", "/end"])
    assert other.exit_code == 0 and said("other") == ["Hello", "And they?"]
    ended = go_on("other", typed=["More"])
    assert ended.exit_code == 0, ended.output
    assert "The conversation has ended. To go on: ostinato chat --from other --run NEW" in (
        ended.stderr
    )


def test_a_branch_by_options() -> None:
    chat("--run", "a", "--out", "a.jsonl", typed=["Hello", "And you?", "Now"])
    assert len(json.loads(Path("a.jsonl").read_text())["answers"]) == 3
    made = go_on("b", "--from", "a", "--at", "2", "--seed", "1", typed=["Then"])
    assert made.exit_code == 0, made.output
    assert said("b") == ["Hello", "And you?", "Then"]
    assert answers("b")[:2] == answers("a")[:2]
    assert len(json.loads(Path("b.jsonl").read_text())["answers"]) == 3
    for arguments, message in (
        (["--run", "c", "--from", "a", "--at", "4"], "--at must be a turn of 'a', which has 3"),
        (["--run", "b", "--from", "a"], "must be new"),
        (["--from", "a"], "--from must be given with --run"),
        (["--run", "c", "--at", "1"], "--at must be given with --from"),
        (["--run", "c", "--from", "nowhere"], "There is no run 'nowhere'"),
    ):
        wrong = CliRunner().invoke(cli, ["chat", *arguments], input="")
        assert message in str(wrong.exception)


def test_rules_answer_and_checks_hold() -> None:
    result = chat("--run", "a", "--rules", "rules.toml", typed=["bye", "Hello", "/why"])
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("Goodbye.\n")
    assert "The check 'contains' is left out: it needs 'asked'." in result.stderr
    assert "The rule 'bye' answered." in result.stderr
    assert "u" not in answers("a")[1]
    assert "excludes (1.00)" in result.stderr
    given = ["--rules", "rules.toml", "--set", 'asked=["u"]', "--max-rounds", "1"]
    waits = chat("--run", "b", *given, typed=["Hello"])
    assert waits.exit_code == 1
    assert "A person answers." in waits.stderr
    assert waits.stderr.count("Answer with: ostinato runs answer b ANSWER") == 1
    line = ["runs", "answer", "b", "The table is booked."]
    assert CliRunner().invoke(cli, line).exit_code == 0
    after = go_on("b")
    assert after.exit_code == 0, after.output
    assert answers("b") == ["The table is booked."]
    assert after.stdout.splitlines() == ["The table is booked."]


def test_two_models_talk() -> None:
    result = chat("--run", "a", "--with", "tiny", "--turns", "3", "--opening", "Hi!")
    assert result.exit_code == 0, result.output
    assert "tiny (1)> " in result.stdout and "tiny (2)> " in result.stdout
    assert said("a")[0] == "Hi!" and len(said("a")) == 3
    more = go_on("b", "--from", "a", "--turns", "5")
    assert more.exit_code == 0 and len(said("b")) == 5
    as_json = chat("--with", "tiny", "--turns", "2", "--json", "--no-journal")
    told = json.loads(as_json.stdout)
    assert [each["model"] for each in told["answers"]] == ["tiny (1)", "tiny (2)"]
    events = [json.loads(line)["event"] for line in as_json.stderr.splitlines()]
    assert events == ["started", "item", "finished"]


def test_json_and_quiet() -> None:
    result = chat("--json", "--run", "a", typed=["Hello"])
    told = json.loads(result.stdout)
    assert told["run"] == "a" and told["status"] == "paused" and len(told["messages"]) == 2
    quiet = chat("--quiet", typed=["Hello"])
    assert quiet.output == ""
    ended = json.loads(go_on("a", "--json", typed=["/end"]).stdout)
    assert ended["status"] == "stopped"
    assert json.loads(go_on("a", "--json").stdout) == ended


def test_wrong_options_are_named() -> None:
    for arguments, message in (
        (["--temperature", "-1"], "temperature"),
        (["--max-cost", "1"], "--max-cost must be given with the prices"),
        (["--with-system", "x"], "--with-system must be given with --with"),
        (["--turns", "3"], "--turns must be given with --with"),
        (["--column", "text"], "--column must be given with --rules"),
        (["--max-rounds", "3"], "--max-rounds must be given with checks"),
        (["--rules", "rules.toml", "--set", "x"], "x"),
        (["--rules", "nowhere.toml"], "nowhere.toml"),
        (["--int8", "--int4"], "--int8 must be given without --int4"),
    ):
        result = CliRunner().invoke(cli, ["chat", "tiny", *arguments], input="Hello\n")
        assert message in str(result.exception), arguments
        assert not Path(".ostinato").exists()
