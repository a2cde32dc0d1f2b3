"""A refine job killed at any moment loses nothing, writes nothing twice, and ends with the same
replies as one that was left alone."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from refine_scribe import JOB, write_job

from ostinato.journal import Journal

CHILD = """
import sys, time
sys.path[:0] = [{tests!r}]
import refine_scribe
from ostinato.cli.main import cli
from ostinato.refine.job.job_run import JobRun
step = refine_scribe.Scribe.step
def slow(self):
    time.sleep(0.004)
    return step(self)
refine_scribe.Scribe.step = slow
JobRun.loop = refine_scribe.scribe_loop
cli(sys.argv[1:])
"""


COMMAND = "refine mail.toml --quiet"


def start(folder: Path, *arguments: str, command: str = COMMAND) -> subprocess.Popen[bytes]:
    code = CHILD.format(tests=str(Path(__file__).parent))
    return subprocess.Popen([sys.executable, "-c", code, *command.split(), *arguments], cwd=folder)


def results(folder: Path) -> list[str]:
    if not (folder / ".ostinato" / "journal.db").exists():
        return []
    with Journal(folder / ".ostinato" / "journal.db") as journal:
        found = journal.find("mail")
        return [key for key, _ in found.results()] if found else []


@pytest.mark.slow
@pytest.mark.parametrize("again", [COMMAND, "runs resume mail"])
@pytest.mark.parametrize("keep", ["results", "steps"])
def test_a_killed_job_ends_with_the_same_replies(tmp_path: Path, keep: str, again: str) -> None:
    write_job(tmp_path, [f"Hello {n}" for n in range(40)], f'keep = "{keep}"\n{JOB}')
    acknowledged: list[str] = []
    for share in (3, 14, 27):
        child = start(tmp_path, command=again if acknowledged else COMMAND)
        while len(acknowledged) < share and child.poll() is None:
            time.sleep(0.01)
            acknowledged = results(tmp_path)
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
        now = results(tmp_path)
        assert now[: len(acknowledged)] == acknowledged
    assert start(tmp_path, command=again).wait() == 0
    assert start(tmp_path, "--output", str(tmp_path / "alone.jsonl"), "--fresh").wait() == 0
    killed = (tmp_path / "mail.replies.jsonl").read_bytes()
    assert killed == (tmp_path / "alone.jsonl").read_bytes()
    ids = [json.loads(line)["id"] for line in killed.splitlines()]
    assert ids == [f"m{n}" for n in range(40)]
    assert sorted(results(tmp_path)) == sorted(ids)
