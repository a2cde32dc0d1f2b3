"""`ostinato flow`: run, resume, answer, show; wrong input is named."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

PROGRAM = """
import sys
from dataclasses import dataclass
from helper import shout
from ostinato.checks import Length
from ostinato.flow import ask, check, flow, gather, step

@dataclass
class Order:
    number: int

@step
def look_up(word: str) -> str:
    print("looking up", word, file=sys.stderr)
    if word == "wrong":
        raise ValueError("no such word")
    return shout(word)

@flow
def inner(word: str) -> str:
    return look_up(word)

@flow
def reply(word: str, times: int = 1) -> str:
    found = inner(word) * times
    if word == "ask":
        return found + ask("How on?", "a draft")
    return found

@flow
def judge(text: str) -> bool:
    check(text, Length(min=1))
    return check(text, [Length(max=1), Length(min=9, name="longer")]).passed

@flow
def order(first: Order) -> int:
    return first.number + 1

@flow
def asked(word: str) -> str:
    return inner(word) + ask("How on?")

@flow
def both(word: str) -> list[str]:
    return gather(lambda: inner(word), lambda: asked("b"))
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "program.py").write_text(PROGRAM)
    (tmp_path / "helper.py").write_text("def shout(word):\n    return word.upper()\n")
    return tmp_path


def run(folder: Path, *arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", "ostinato", *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == code, (done.stdout, done.stderr)
    assert "Traceback" not in done.stderr
    return done


def test_a_flow_is_run_once_and_shown(folder: Path) -> None:
    first = run(folder, "flow", "run", "program.py:reply", "hello", "times=2")
    assert first.stdout == "HELLOHELLO\n"
    assert first.stderr == "looking up hello\n"
    again = run(folder, "flow", "run", "program.py:reply", "hello", "times=2")
    assert (again.stdout, again.stderr) == ("HELLOHELLO\n", "")
    name = run(folder, "runs").stdout.split()[0]
    assert name.startswith("reply-")
    shown = run(folder, "flow", "show", name).stdout
    assert shown == "  1 inner          HELLO\n      1 look_up        HELLO\n"
    rows = [
        json.loads(line)
        for line in run(folder, "flow", "show", name, "--json").stdout.split("\n")
        if line
    ]
    assert [row["path"] for row in rows] == ["1:inner", "1:inner/1:look_up"]
    fresh = run(folder, "flow", "run", "program.py:reply", "hello", "times=2", "--fresh")
    assert fresh.stderr == "looking up hello\n"


def test_branches_and_calls_in_progress_are_shown(folder: Path) -> None:
    run(folder, "flow", "run", "program.py:both", "a", "--run", "two", code=1)
    assert run(folder, "flow", "show", "two").stdout.splitlines() == [
        "  1 gather[0]",
        "      1 inner          A",
        "          1 look_up        A",
        "  1 gather[1]",
        "      1 asked          in progress",
        "          1 inner          B",
        "              1 look_up        B",
    ]


def test_the_first_rows_alone(folder: Path) -> None:
    rows = "".join(json.dumps({"id": name, "word": name}) + "\n" for name in "abc")
    (folder / "rows.jsonl").write_text(rows)
    command = ["flow", "run", "program.py:inner", "--over", "rows.jsonl", "--out", "out.jsonl"]
    run(folder, *command, "--limit", "2", "--run", "few")
    assert outputs(folder) == {"a": "A", "b": "B"}
    with (folder / "rows.jsonl").open("a") as file:
        file.write('{"id": "d", "word": "d"}\n')
    assert run(folder, *command, "--limit", "2", "--run", "few").stderr == ""
    assert "--limit" in run(folder, *command, "--limit", "3", "--run", "few", code=2).stderr


def test_what_checks_say_is_shown_in_words(folder: Path) -> None:
    assert run(folder, "flow", "run", "program.py:judge", "a b", "--run", "a").stdout == "false\n"
    first, second = run(folder, "flow", "show", "a").stdout.splitlines()
    assert first.split() == ["1", "check", "passed"]
    assert "2 check          failed: Cut 1 word: the text has 2" in second
    assert second.count("the text has 2") == 2  # both that failed


def test_progress_counts_a_flow_once() -> None:
    from types import SimpleNamespace

    from ostinato.cli.flow import _tally
    from ostinato.journal import StopKind, Stopped
    from ostinato.loop import LaneResult

    stopped = Stopped(StopKind.ENDED, "It returned.")
    first, second = (
        LaneResult(key=key, index=0, output="", accepted=True, stopped=stopped) for key in "ab"
    )
    run = SimpleNamespace(
        results=lambda: [("a", first.to_json())], checkpoints=list, keys_after=lambda tick: {"a"}
    )
    lanes = SimpleNamespace(counts=lambda: {"in progress": 3, "failed": 0})
    loop = SimpleNamespace(recorded_as=run)
    work: Any = SimpleNamespace(count=9, lanes=lanes, tokens=0, loop=loop)
    tally = _tally(work)
    step: Any = SimpleNamespace(results=[first, second], lanes={})  # "a" again, as on a resume
    tally.add_step(step)
    assert tally.line(0.0) == "2 of 9 returned, 3 in progress"


def test_a_typed_argument_is_json(folder: Path) -> None:
    assert run(folder, "flow", "run", "program.py:order", '{"number": 4}').stdout == "5\n"
    wrong = run(folder, "flow", "run", "program.py:order", '{"number": "x"}', code=2)
    assert "argument first of order must be what its annotation says, Order" in wrong.stderr


def test_a_flow_waits_and_goes_on(folder: Path) -> None:
    waits = run(folder, "flow", "run", "program.py:reply", "ask", "--run", "a", code=1)
    assert (
        "2:ask asks: How on?\n\na draft\nAnswer with: ostinato runs answer a ANSWER" in waits.stderr
    )
    run(folder, "runs", "answer", "a", "this way")
    shown = run(folder, "runs", "show", "a").stdout
    assert "ostinato runs resume a --trust" in shown
    assert "If you trust it" in run(folder, "runs", "resume", "a", code=2).stderr
    assert run(folder, "runs", "resume", "a", "--trust").stdout == "ASKthis way\n"


def test_rows_that_fail_go_on_alone(folder: Path) -> None:
    rows = [{"id": word, "word": word} for word in ("one", "wrong", "two", "ask")]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    arguments = ("flow", "run", "program.py:reply", "--over", "rows.jsonl", "--out", "out.jsonl")
    first = run(folder, *arguments, "--run", "a", code=1)
    assert "2 of 4 flows have returned: " in first.stdout
    assert "ask/2:ask asks: How on?" in first.stderr
    assert outputs(folder) == {"one": "ONE", "two": "TWO"}
    shown = run(folder, "flow", "show", "a").stdout
    assert "one  returned, 2 calls" in shown and "ask  waits, 2 calls" in shown
    run(folder, "runs", "answer", "a", "ok")
    second = run(folder, *arguments, "--run", "a", code=1)
    assert "One flow has failed" in second.stderr
    assert "ValueError: no such word at program.py:" in second.stderr
    assert second.stderr.count("looking up") == 1  # the one that failed
    program = folder / "program.py"
    program.write_text(program.read_text().replace('word == "wrong"', 'word == "nothing"'))
    done = run(folder, *arguments, "--run", "a")
    assert "4 of 4 flows have returned" in done.stdout
    assert outputs(folder) == {"one": "ONE", "wrong": "WRONG", "two": "TWO", "ask": "ASKok"}


def test_other_rows_are_another_run(folder: Path) -> None:
    rows, command = folder / "rows.csv", ("flow", "run", "program.py:reply", "--over", "rows.csv")
    rows.write_text("id,word\na,one\n")
    run(folder, *command, "--out", "out.jsonl")
    rows.write_text("id,word\na,two\n")
    refused = run(folder, *command, "--out", "out.jsonl", code=2).stderr
    assert "'reply-rows' must keep the configuration" in refused
    assert "the hash of the rows was" in refused and "start another run" in refused
    resumed = run(folder, "runs", "resume", "reply-rows", "--trust", code=2).stderr
    assert "The rows of rows.csv must be as they were" in resumed
    assert outputs(folder) == {"a": "ONE"}
    run(folder, *command, "--out", "out.jsonl", "--fresh")
    assert outputs(folder) == {"a": "TWO"}


def outputs(folder: Path) -> dict[str, Any]:
    lines = (folder / "out.jsonl").read_text().splitlines()
    return {row["id"]: row["output"] for row in map(json.loads, lines)}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["missing.py"], "must be a file, got missing.py"),
        (
            ["program.py"],
            "as there are several: inner, reply, judge, order, asked, both. Give program.py:inner.",
        ),
        (["program.py:replay", "x"], "Did you mean 'reply'?"),
        (["program.py:reply"], "missing a required argument: 'word'"),
        (["program.py:reply", "a", "2", "3"], "at most 2 arguments, got 3"),
        (["program.py:reply", "a", "times=x"], "argument times of reply must be"),
        (["program.py:reply", "--over", "no.jsonl"], "no.jsonl must exist"),
        (["program.py:reply", "a", "--over", "no.jsonl"], "must be left out with --over"),
        (["program.py:reply", "a", "--out", "x.jsonl"], "--out must be given with --over"),
        (["program.py:reply", "a", "--limit", "1"], "--limit must be given with --over"),
        (["program.py:reply", "--over", "-"], "--over must be a file, got standard input"),
        (["broken.py:reply", "a"], "must import, got NameError"),
        (["program.py:order", "--over", "words.jsonl"], "The argument first of order"),
    ],
)
def test_wrong_input_is_named(folder: Path, arguments: list[str], message: str) -> None:
    (folder / "broken.py").write_text("undefined\n")
    (folder / "words.jsonl").write_text('{"first": "a"}\n')
    assert message in run(folder, "flow", "run", *arguments, code=2).stderr
    assert not (folder / ".ostinato").exists()


def test_a_run_of_another_kind_is_not_shown_as_a_flow(folder: Path) -> None:
    script = "from ostinato import Loop, Steps; Loop(lambda: {}, until=Steps(1), run='a').run()"
    subprocess.run([sys.executable, "-c", script], cwd=folder, check=True, timeout=60)
    assert "must be one of flows" in run(folder, "flow", "show", "a", code=2).stderr
