"""`ostinato tune`: a job's own checks tune its model, and the job takes the adapter."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from tiny import save_tiny

from ostinato.cli.main import cli
from ostinato.journal import Journal

JOB = """
input = "messages.jsonl"
output = "out.jsonl"
id = "id"
model = "smollm2"
compile = false

[prompt]
template = "{message}"

[[rule]]
name = "thanks"
column = "message"
pattern = "^thanks"
reply = "welcome"

[[check]]
kind = "length"
max = 6

[[check]]
kind = "excludes"
texts = ["e"]
whole = false

[sampling]
temperature = 1.0
max_new_tokens = 8
"""
TUNE = (
    "tune job.toml --steps 4 --prompts-per-step 2 --group-size 3 --valid-every 2 --lora-rank 2 "
    "--hold-out 0.3 --checkpoint-every 1 --lr 0.01 --max-bits 0 --texts texts.jsonl"
)

DIES = """
import os, signal, sys
from ostinato.reward import GroupPolicy
from ostinato.cli.main import cli

step = GroupPolicy.step

def dies(policy):
    if policy.cursor.steps == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return step(policy)

GroupPolicy.step = dies
cli(sys.argv[1:])
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("OSTINATO_CACHE", str(tmp_path / "cache"))
    save_tiny(tmp_path / "cache" / "models" / "smollm2")
    monkeypatch.chdir(tmp_path)
    Path("job.toml").write_text(JOB)
    messages = [{"id": str(n), "message": f"Can you help with {n}?"} for n in range(6)]
    rows = [*messages, {"id": "t", "message": "thanks"}]
    Path("messages.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    Path("texts.jsonl").write_text('{"prompt": "Can you help?", "completion": " Yes."}\n' * 3)
    return tmp_path


def run(text: str) -> Result:
    return CliRunner().invoke(cli, shlex.split(text))


def output_of(text: str) -> str:
    result = run(text)
    assert result.exit_code in (0, 1), (result.output, result.exception)
    return result.output


def weights(out: str) -> bytes:
    return Path(out, "adapter_model.safetensors").read_bytes()


def test_a_tuning_that_is_killed_goes_on_to_the_same_bits_and_the_job_takes_its_adapter() -> None:
    whole = output_of(f"{TUNE} --out whole")
    assert "4 prompts to learn from, 2 held out, 2 steps per epoch" in whole
    assert "held out: reward" in whole and "samples/s" in whole
    child = subprocess.run(
        [sys.executable, "-c", DIES, *shlex.split(f"{TUNE} --out cut")],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert child.returncode == -signal.SIGKILL and not Path("cut").exists()
    assert "Resuming from step 2.\n" in output_of("runs resume tune-cut")
    assert weights("cut") == weights("whole")
    with Journal() as journal:
        one, other = (
            [step.report for step in journal.get(f"tune-{name}").steps()]
            for name in ("cut", "whole")
        )
    assert one == other and len(one) == 4
    assert {"reward", "passed/length", "kl", "skipped", "start/reward/valid"} <= one[0].keys()
    assert "tune" in output_of("runs show tune-cut")
    text = output_of("refine job.toml --adapter cut --strategy resample")
    assert "of 7 accepted" in text
    again = output_of("refine job.toml --adapter cut --strategy resample")
    assert "finished" in again
    assert "adapter was" in str(run("refine job.toml --strategy resample").exception)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--held-out-check lenght", "must be a check of the job .length, excludes., got 'lenght'"),
        ("--weight length", "weight must be NAME=NUMBER"),
        ("--weight lenght=1", "weights must name checks .* Did you mean 'length'"),
        ("--whole 2", r"--whole must be in \[0, 1\], got 2"),
        ("--held-out-check length --held-out-check excludes", "all of them held out"),
        ("--model http://127.0.0.1:1/v1#m", "must be one in this process"),
        ("--group-size 1", "--group-size must be at least 2"),
        ("--texts missing.jsonl", "missing.jsonl must exist"),
        ("--texts-weight 0", "--texts-weight must be above 0"),
        ("--reward job:none", "module of a check must be a file|must be"),
    ],
)
def test_what_cannot_be_tuned_is_said_before_any_work(options: str, message: str) -> None:
    result = run(f"{TUNE} --out out {options}")
    assert result.exit_code != 0 and not Path(".ostinato").exists()
    assert re.search(message, str(result.exception))
