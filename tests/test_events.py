"""Every command that runs a loop takes --quiet and --json, and tells its events in one form."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result
from refine_scribe import scribe_loop, write_job
from tiny import save_tiny

from ostinato.cli.following import View, followed, view_options
from ostinato.cli.main import COMMANDS, cli
from ostinato.loop import Loop, Steps
from ostinato.refine import QuietProgress
from ostinato.refine.job.job_run import JobRun

MESSAGES = ["Hello", "Thanks a lot", "A refund", "Call me"]
LOOPS = ["refine", "chat", "generate", "fill", "tune", "play", "teach", "flow run", "runs resume"]
TRAIN = (
    "train text a.txt --out small --layers 1 --width 16 --heads 2 --context 16 --vocab-size 270 "
    "--batch-tokens 64 --steps 6 --valid-every 3 --warmup-steps 2"
)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("ostinato.refine.progress.PLAIN_EVERY", 0.0)
    Path("a.txt").write_text("We can help you. " * 60)
    return tmp_path


def command_of(words: str) -> click.Command:
    command: click.Command = cli
    for word in words.split():
        assert isinstance(command, click.Group)
        found = command.get_command(click.Context(command), word)
        assert found is not None, words
        command = found
    return command


def under(words: str) -> list[str]:
    group = command_of(words)
    assert isinstance(group, click.Group)
    return [f"{words} {name}" for name in group.list_commands(click.Context(group))]


def call(words: str) -> Result:
    return CliRunner().invoke(cli, words.split(), catch_exceptions=False)


def events_of(result: Result) -> list[dict[str, Any]]:
    assert result.exit_code in (0, 1), result.output
    json.loads(result.stdout)  # one object
    return [json.loads(line) for line in result.stderr.splitlines()]


def test_every_command_that_runs_a_loop_has_both_options_by_one_declaration() -> None:
    @click.command()
    @view_options
    def other(view: View) -> None: ...

    shared = {option.name: option for option in other.params if isinstance(option, click.Option)}
    for words in [*LOOPS, *under("train"), *under("sample")]:
        options = {option.name: option for option in command_of(words).params}
        for name, option in shared.items():
            there = options.get(name)
            assert isinstance(there, click.Option), (words, name)
            assert there.help == option.help, (words, name)
    assert {words.split()[0] for words in LOOPS} | {"train", "sample"} <= COMMANDS.keys()


def test_a_job_tells_its_events(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(JobRun, "loop", scribe_loop)
    write_job(Path(), MESSAGES)
    events = events_of(call("refine mail.toml --json"))
    assert events[0] == {"event": "started", "run": "mail", "kind": "refine", "tick": 0}
    items = [event for event in events if event["event"] == "item"]
    assert {item["key"] for item in items} == {f"m{n}" for n in range(len(MESSAGES))}
    progress = [event for event in events if event["event"] == "progress"]
    assert progress[-1]["done"] == progress[-1]["items"] == len(MESSAGES)
    assert progress[-1]["tokens"] > 0 and progress[-1]["seconds_left"] is None
    assert events[-1]["event"] == "finished" and events[-1]["status"] == "stopped"
    assert events[-1]["stopped"]["kind"] == "ended"
    both = call("refine mail.toml --fresh --json --quiet")
    assert both.stderr == "" and json.loads(both.stdout)["items"] == len(MESSAGES)


def test_a_training_tells_its_events_and_quiet_its_result_alone() -> None:
    events = events_of(call(f"{TRAIN} --json"))
    steps = [event for event in events if event["event"] == "progress"]
    assert [event["step"] for event in steps if "loss/valid" in event] == [3, 6]
    assert steps[-1]["steps"] == 6 and steps[-1]["loss/train"] > 0
    assert steps[-1]["tokens_per_second"] > 0
    assert [event["event"] for event in events if event["event"] in ("started", "finished")] == [
        "started",
        "finished",
    ]
    quiet = call(f"{TRAIN.replace('small', 'quiet')} --quiet")
    assert quiet.stderr == "" and re.fullmatch(r"Saved in quiet .*\n", quiet.stdout)


def test_a_text_is_all_that_a_quiet_command_prints() -> None:
    save_tiny(Path("tiny"))
    words = "generate Hello --model tiny --max-new-tokens 4"
    plain, quiet = call(words), call(f"{words} --quiet")
    assert (quiet.stdout, quiet.stderr) == (f"{plain.stdout}\n", "")
    events = events_of(call(f"{words} --json"))
    assert [event["event"] for event in events if event["event"] != "progress"] == [
        "started",
        "item",
        "finished",
    ]


def test_an_error_ends_with_an_event_too(capsys: pytest.CaptureFixture[str]) -> None:
    def step() -> dict[str, float]:
        raise ZeroDivisionError("nothing")

    loop = Loop(step, until=Steps(3))
    view = View(as_json=True)
    with pytest.raises(ZeroDivisionError), followed(loop, view, QuietProgress()):
        loop.run()
    last = json.loads(capsys.readouterr().err.splitlines()[-1])
    assert last["event"] == "finished" and last["stopped"]["kind"] == "error"
    assert "nothing" in last["stopped"]["sentence"]


def test_in_a_terminal_a_training_keeps_one_line(folder: Path) -> None:
    main, side = pty.openpty()
    words = [*TRAIN.replace("--steps 6", "--steps 40").split(), "--no-journal"]
    done = subprocess.run(
        [sys.executable, "-m", "ostinato", *words],
        stdout=subprocess.PIPE,
        stderr=side,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "120"},
        timeout=200,
        check=True,
    )
    os.close(side)
    shown = b""
    while True:
        try:
            part = os.read(main, 65536)
        except OSError:  # the other side is closed
            break
        if not part:
            break
        shown += part
    os.close(main)
    assert b"step 40 of 40" in shown
    lines = done.stdout.decode().splitlines()
    assert sum(line.startswith("step ") for line in lines) >= 2 and "Saved in small" in lines[-2]
    assert "\x1b" not in done.stdout.decode()
