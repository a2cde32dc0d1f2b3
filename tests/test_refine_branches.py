"""A branch of a refine job is driven by `ostinato refine --run`, and writes beside its parent."""

from __future__ import annotations

import os
import shlex
import signal
import sqlite3
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from refine_scribe import JOB, scribe_loop, write_job

from ostinato.cli.main import cli
from ostinato.errors import InputError
from ostinato.journal import Journal
from ostinato.loop import Loop
from ostinato.refine.job.job_run import JobRun

LOW = "refine mail.toml --output low.jsonl --run low"
REPLIES = Path("mail.replies.jsonl")


def call(line: str) -> Result:
    return CliRunner().invoke(cli, shlex.split(line))


def output_of(line: str) -> str:
    result = call(line)
    assert result.exit_code == 0, (result.output, result.exception)
    return result.output


def refused(line: str) -> str:
    error = call(line).exception
    assert type(error) is InputError, error
    return str(error)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A job that was interrupted, so that it has a checkpoint on its way."""
    monkeypatch.chdir(tmp_path)
    write_job(tmp_path, [f"Message {n}" for n in range(12)], JOB)

    def interrupted(work: JobRun, **_: object) -> Loop:
        loop = scribe_loop(work)
        run, ticks = loop.run, iter(range(1000))

        def watched(watch: object = None) -> object:
            def count(step: object) -> None:
                if next(ticks) == 30:
                    os.kill(os.getpid(), signal.SIGINT)

            return run(count)

        loop.run = watched  # type: ignore[method-assign,assignment]
        return loop

    monkeypatch.setattr(JobRun, "loop", interrupted)
    assert call("refine mail.toml").exit_code == 130
    monkeypatch.setattr(JobRun, "loop", scribe_loop)
    return tmp_path


@pytest.mark.parametrize("command", ["runs resume low", LOW])
def test_a_branch_is_resumed_by_either_command_and_gives_the_same_replies(command: str) -> None:
    made = output_of("runs branch mail --as low")
    assert made.endswith("Resume it with: ostinato runs resume low\n")
    before = REPLIES.read_bytes()
    assert "run      low\n" in output_of(command)
    assert REPLIES.read_bytes() == before  # the parent's stay as they were
    assert "run      mail\n" in output_of("refine mail.toml")
    assert REPLIES.read_bytes() == Path("low.jsonl").read_bytes() != before
    assert "The job is finished" in output_of(command)
    assert "resume with ostinato runs resume low\n" in output_of("runs show low")


def test_resume_drives_a_branch_and_a_branch_of_it() -> None:
    output_of("runs branch mail --as low")
    output_of("runs branch low --as lower")
    assert "run      lower\n" in output_of("runs resume lower")
    assert "run      low\n" in output_of("runs resume low")
    assert Path("low.jsonl").read_bytes() == Path("lower.jsonl").read_bytes()


def test_a_job_that_was_killed_behind_its_last_result_is_recorded_as_ended() -> None:
    output_of("refine mail.toml")
    ended = output_of("runs show mail").splitlines()[:2]
    assert ended[0].startswith("mail: refine, stopped") and "All 12 items are done." in ended[1]
    with Journal() as journal, sqlite3.connect(journal.path) as connection:
        connection.execute("UPDATE runs SET status = 'running', stopped = NULL")
    connection.close()
    assert "mail: refine, interrupted" in output_of("runs show mail")
    assert "The job is finished" in output_of("refine mail.toml")
    assert output_of("runs show mail").splitlines()[:2] == ended
    output_of("runs branch mail --as end")
    assert "The job is finished" in output_of("runs resume end")
    assert "end: refine, stopped" in output_of("runs show end")


def test_a_branch_does_not_replace_its_parent() -> None:
    output_of("runs branch mail --as low")
    assert refused("refine mail.toml --run low").startswith(
        "The output of the branch 'low' must differ from its parent's, got "
    )
    assert "run      mail\n" in output_of("refine mail.toml")
    with Journal() as journal:
        assert journal.get("low").status == "paused"


def test_why_takes_a_job_s_own_run_and_a_branch_by_its_name() -> None:
    output_of("refine mail.toml")
    output_of("runs branch mail --as low")
    assert output_of("why mail.toml").startswith("mail: 12 items done.")
    assert output_of("why low").startswith("low: ")


def test_a_run_may_be_named_and_must_be_of_the_job(folder: Path) -> None:
    assert "run      mine\n" in output_of("refine mail.toml --run mine --output mine.jsonl")
    assert "The job is finished" in output_of("refine mail.toml --run mine --output mine.jsonl")
    (folder / "other.toml").write_text(JOB, encoding="utf-8")
    assert "--run must name a run of other.toml, got 'mine'" in refused(
        "refine other.toml --run mine"
    )
    assert "--run must be given without --update" in refused("refine mail.toml --run mine --update")
    (folder / "mail.toml").write_text(JOB.replace("max = 6", "max = 7"), encoding="utf-8")
    sentence = refused("refine mail.toml --run mine --output mine.jsonl")
    assert "checks.length.max was 6, is 7" in sentence
    assert "or start another run with ostinato refine mail.toml: --update for" in sentence
