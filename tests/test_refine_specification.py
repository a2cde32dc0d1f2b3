"""Runs of jobs are built from their specification: resumed, branched, compared, and trusted."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import sqlite3
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from refine_scribe import JOB, scribe_loop, write_job

import ostinato.runs
from ostinato.cli.main import cli
from ostinato.errors import InputError, RunError
from ostinato.journal import Journal, config_from_json, config_to_json
from ostinato.loop import Loop
from ostinato.refine import JobRunConfig, open_job, read_job
from ostinato.refine.job.job_run import JobRun

MESSAGES = [f"Message {n}" for n in range(12)]
REPLIES = Path("mail.replies.jsonl")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Write a job that a made-up process works on."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(JobRun, "loop", scribe_loop)
    write_job(tmp_path, MESSAGES)
    return tmp_path


def output_of(line: str) -> str:
    result = CliRunner().invoke(cli, shlex.split(line))
    assert result.exit_code == 0, (result.output, result.exception)
    return result.output


def refused(line: str) -> str:
    error = CliRunner().invoke(cli, shlex.split(line)).exception
    assert isinstance(error, InputError | RunError), error
    return str(error)


@pytest.fixture
def interrupted(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Interrupt the job in the middle; return what it writes when it is left alone."""

    def pausing(self: JobRun, *args: object, **more: object) -> Loop:
        loop, ticks = scribe_loop(self), count()
        run = loop.run

        def pause(step: object) -> None:
            if next(ticks) == 30:
                raise KeyboardInterrupt

        loop.run = lambda watch=None: run(pause)  # type: ignore[method-assign]
        return loop

    with monkeypatch.context() as patch:
        patch.setattr(JobRun, "loop", pausing)
        result = CliRunner().invoke(cli, ["refine", "mail.toml", "--run", "mail"])
    assert result.exit_code == 130
    output_of("refine mail.toml --output whole.jsonl --fresh")
    return folder / "whole.jsonl"


def test_resume_gives_the_same_bytes_by_the_name_and_by_the_command(interrupted: Path) -> None:
    shutil.copytree(".", "../copy")
    assert "run      mail\n" in output_of("runs resume mail")
    os.chdir("../copy")
    assert "run      mail\n" in output_of("refine mail.toml --run mail")
    assert REPLIES.read_bytes() == interrupted.read_bytes()
    assert Path(interrupted.parent, REPLIES).read_bytes() == interrupted.read_bytes()


def test_python_builds_the_run_and_writes_the_same_bytes(interrupted: Path) -> None:
    with Journal() as journal:
        work = ostinato.runs.build(journal.get("mail"))
        work.loop.run()
        work.finish()
    assert REPLIES.read_bytes() == interrupted.read_bytes()
    assert REPLIES.with_suffix(".report.html").is_file()


def test_a_run_can_be_made_from_its_configuration(folder: Path) -> None:
    config = JobRunConfig.of(read_job("mail.toml", output="made.jsonl"), limit=3)
    with Journal() as journal:
        work = ostinato.runs.build(ostinato.runs.record(journal, config, name="made"))
        work.loop.run()
        work.finish()
    assert len(Path("made.jsonl").read_text().splitlines()) == 3
    assert "The job is finished" in output_of("refine mail.toml --output made.jsonl --limit 3")


def test_a_raised_budget_of_the_file_counts(folder: Path) -> None:
    def write(tokens: int) -> None:
        Path("mail.toml").write_text(f"{JOB}[budget]\njob_tokens = {tokens}\n", encoding="utf-8")

    write(20)
    result = CliRunner().invoke(cli, ["refine", "mail.toml"])
    assert result.exit_code == 3 and "and run: ostinato runs resume mail\n" in result.output
    assert CliRunner().invoke(cli, ["runs", "resume", "mail"]).exit_code == 3
    write(9000)
    assert "12 of 12 accepted" in output_of("runs resume mail")
    assert "Raise [budget] in the job file" in refused("runs resume mail --until 'Steps(5)'")


@pytest.mark.parametrize("command", ["runs resume mail", "refine mail.toml"])
def test_a_changed_job_is_told_field_by_field(command: str) -> None:
    output_of("refine mail.toml")
    changed = JOB.replace("max = 6", "max = 7").replace("rounds = 40", "rounds = 41")
    Path("mail.toml").write_text(changed + "[sampling]\ntemperature = 0.9\n", encoding="utf-8")
    sentence = refused(command)
    assert (
        "  - changed in the job: checks.length.max was 6, is 7, strategy.rounds was 40, is 41, "
        "sampling.temperature was 0.7, is 0.9\n" in sentence
    )


def without(keys: dict[str, Any], *names: str) -> None:
    for name in names:
        *path, last = name.split(".")
        place = keys
        for key in path:
            place = place[key]
        del place[last]


def test_a_run_from_before_some_settings_goes_on(folder: Path) -> None:
    output_of("refine mail.toml")
    with sqlite3.connect(".ostinato/journal.db") as connection:
        (spec,) = connection.execute("SELECT spec FROM runs").fetchone()
        value = json.loads(spec)
        later = "settings.sampling.end_bias", "settings.strategy.rounds", "settings.bits", "choices"
        value["config"]["settings"]["strategy"]["rounds"] = 8  # as it is by default
        without(value["config"], *later)
        connection.execute("UPDATE runs SET spec = ?", (json.dumps(value),))
    connection.close()
    Path("mail.toml").write_text(JOB.replace("rounds = 40", ""), encoding="utf-8")
    for command in ("refine mail.toml", "runs resume mail"):
        assert "The job is finished" in output_of(command)


def test_a_run_goes_on_where_its_folder_is_moved(interrupted: Path) -> None:
    os.chdir("..")
    os.rename(interrupted.parent, "moved")
    os.chdir("moved")
    assert "run      mail\n" in output_of("runs resume mail")
    assert REPLIES.read_bytes() == Path("whole.jsonl").read_bytes()


def test_what_was_chosen_beside_the_file_is_chosen_again(folder: Path) -> None:
    line = "refine mail.toml --limit 2 --seed 3 --strategy resample --output o.jsonl"
    assert f"ostinato {line.replace('--seed 3', '')}".split()[:4] == [
        "ostinato",
        "refine",
        "mail.toml",
        "--limit",
    ]
    said = output_of(line)
    again = "refine mail.toml --limit 2 --output o.jsonl --strategy resample --seed 4 --fresh"
    assert f"again    ostinato {again}\n" in said
    before = Path("o.jsonl").read_bytes()
    Path("o.jsonl").unlink()
    assert "The job is finished" in output_of("runs resume mail")
    assert Path("o.jsonl").read_bytes() == before and not REPLIES.exists()
    with Journal() as journal:
        config = ostinato.runs.config_of(journal.get("mail"))
    assert isinstance(config, JobRunConfig)
    assert (config.limit, config.choices.seed, config.choices.strategy) == (2, 3, "resample")
    written = json.loads(json.dumps(config_to_json(config, folder)))
    assert config_from_json(JobRunConfig, written, folder) == config


# Trust ------------------------------------------------------------------------------------------


def test_the_code_of_a_check_is_run_only_with_trust(folder: Path) -> None:
    Path("mail.toml").write_text(
        JOB + '[[check]]\nkind = "python"\ncall = "mine:calm"\n', encoding="utf-8"
    )
    Path("mine.py").write_text("def calm(text):\n    return True\n", encoding="utf-8")
    output_of("refine mail.toml")
    Path("mine.py").write_text("raise SystemExit('it was run')\n", encoding="utf-8")
    sentence = refused("runs resume mail")
    assert "calls the function mine:calm" in sentence
    assert sentence.endswith("run: ostinato runs resume mail --trust")
    assert "resume with ostinato runs resume mail --trust" in output_of("runs show mail")
    Path("mine.py").write_text("def calm(text):\n    return True\n", encoding="utf-8")
    assert "The job is finished" in output_of("runs resume mail --trust")


def test_a_file_outside_of_the_journals_folder_is_written_only_with_trust(folder: Path) -> None:
    outside = folder.parent / "outside.jsonl"
    output_of(f"refine mail.toml --output {outside}")
    assert f"outside of {folder}: {outside}" in refused("runs resume mail")
    assert "The job is finished" in output_of("runs resume mail --trust")


def test_items_are_sent_to_a_server_that_the_journal_names_only_with_trust(folder: Path) -> None:
    job = read_job("mail.toml").with_changes(model="http://127.0.0.1:9/v1#m", strategy="resample")
    with Journal() as journal:
        open_job(job, journal)
    assert "sends its items to http://127.0.0.1:9/v1#m" in refused("runs resume mail")


def test_a_job_that_is_not_recorded_cannot_be_built(folder: Path) -> None:
    with pytest.raises(RunError, match="A job must be recorded as a run, got none"):
        ostinato.runs.build_config(JobRunConfig.of(read_job("mail.toml")))


# Runs of older versions -------------------------------------------------------------------------


def as_older(folder: Path) -> None:
    """Rewrite the runs of a journal as an older version recorded them."""
    job = read_job("mail.toml")
    with Journal() as journal:
        known = {run.id: run.spec for run in journal.runs()}
    with sqlite3.connect(".ostinato/journal.db") as connection:
        for id, spec in known.items():
            older = {
                "job": str(job.file),
                "output": str(job.output),
                "limit": None,
                "fingerprint": {**as_dict(spec["fingerprint"]), "sections": job.sections()},
                "item_budget": [None, None],
                "checks": ["length", "polite"],
                "begun": {
                    "command": "refine",
                    "options": [],
                    "arguments": ["mail.toml"],
                    "folder": str(folder),
                },
            }
            connection.execute("UPDATE runs SET spec = ? WHERE id = ?", (json.dumps(older), id))
    connection.close()


def as_dict(value: Any) -> dict[str, Any]:
    assert isinstance(value, dict)
    return value


def test_the_command_goes_on_with_a_run_of_an_older_version(folder: Path) -> None:
    output_of("refine mail.toml")
    as_older(folder)
    assert "Type the command that started it: ostinato refine mail.toml" in refused(
        "runs resume mail"
    )
    assert "The job is finished" in output_of("refine mail.toml")
    assert "The job is finished" in output_of("runs resume mail")


def test_a_changed_job_of_an_older_version_is_told_by_sections(folder: Path) -> None:
    output_of("refine mail.toml")
    as_older(folder)
    Path("mail.toml").write_text(JOB.replace("max = 6", "max = 7"), encoding="utf-8")
    assert "  - changed in the job: checks\n" in refused("refine mail.toml")
