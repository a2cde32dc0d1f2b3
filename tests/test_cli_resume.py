"""`ostinato runs resume` builds a run from its record, and drives it as its command does."""

from __future__ import annotations

import json
import os
import shlex
import signal
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from refine_scribe import scribe_loop, write_job
from tiny import save_tiny

from ostinato.cli import text_output as written
from ostinato.cli.main import cli
from ostinato.errors import EditError, InputError, RunError
from ostinato.journal import Journal
from ostinato.loop import CheckpointSchedule
from ostinato.refine.job.job_run import JobRun
from ostinato.runs import config_of
from ostinato.text import GenerateRun

WRITE = "generate 'Your table' --model tiny --max-new-tokens 8 --run w"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def call(line: str, **more: Any) -> Result:
    return CliRunner().invoke(cli, shlex.split(line), **more)


def output_of(line: str, **more: Any) -> str:
    result = call(line, **more)
    assert result.exit_code == 0, (result.output, result.exception)
    return result.output


def refused(kind: type[Exception], line: str) -> str:
    error = call(line).exception
    assert type(error) is kind, error
    return str(error)


# Texts ------------------------------------------------------------------------------------------


def test_a_run_of_generate_names_its_command_and_says_why_it_ended(folder: Path) -> None:
    save_tiny(folder / "tiny")
    output_of(WRITE)
    shown = output_of("runs show w")
    assert "resume with ostinato runs resume w\n" in shown and "Python" not in shown
    assert "until       it ends by itself, or a person stops it" in shown
    assert json.loads(output_of("runs show w --json"))["resume_with"] == "ostinato runs resume w"
    assert "[8 tokens. It has taken 8 steps, the limit. The run 'w' is finished.]" in output_of(
        "runs resume w"
    )
    assert "--until must be left out for a run of the kind generate" in refused(
        InputError, "runs resume w --until 'Steps(9)'"
    )


def test_a_text_from_standard_input_is_part_of_the_run(folder: Path) -> None:
    save_tiny(folder / "tiny")
    command = "generate - --model tiny --max-new-tokens 3 --run w"
    output_of(f"{command} --json", input="-- Your 'table'")
    assert "is finished" in output_of("runs resume w")
    assert "is finished" in output_of(command, input="-- Your 'table'")
    assert "but PROMPT or --system was -- Your 'table', is Mine." in str(
        call(command, input="Mine").exception
    )


def test_resume_continues_an_interrupted_text(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_tiny(folder / "tiny")
    printed = written._print

    def interrupting(position: int, report: Any, show: bool) -> None:
        printed(position, report, show)
        if position == 5:
            os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(written, "_print", interrupting)
        assert call(WRITE).exit_code == 130
    (folder / "elsewhere").mkdir()
    monkeypatch.chdir(folder / "elsewhere")
    journal = f"--journal {shlex.quote(str(folder / '.ostinato/journal.db'))}"
    assert f"resume with ostinato runs resume w {journal}\n" in output_of(f"runs show w {journal}")
    value = json.loads(output_of(f"runs resume w --json {journal}").splitlines()[-1])
    assert len(value["tokens"]) == 8 and Path.cwd() == folder / "elsewhere"


@pytest.fixture
def often(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Save a tiny model, and every run at each fourth step."""
    save_tiny(folder / "tiny")
    monkeypatch.setattr(
        "ostinato.loop.loop.CheckpointSchedule", partial(CheckpointSchedule, steps=4)
    )


@pytest.mark.usefixtures("often")
def test_a_branch_of_a_text_and_its_branch_print_all_of_it() -> None:
    whole = output_of(WRITE)
    output_of("runs branch w --at 4 --as b")
    output_of("runs branch b --as c")
    for name in ("c", "b"):
        assert output_of(f"runs resume {name} --trust") == whole
    value = json.loads(call(f"{WRITE.replace('--run w', '--run c')} --json").stdout)
    assert len(value["tokens"]) == 8


@pytest.mark.usefixtures("often")
def test_nothing_can_be_changed_where_a_run_has_ended() -> None:
    output_of(WRITE)
    sentence = refused(RunError, "runs branch w --as b --set temperature=0")
    assert "before the end of 'w', got tick 8" in sentence and "are at: 4." in sentence
    assert "Created b" in output_of("runs branch w --at 4 --as b --set temperature=0")


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        ("num_beams=4", "Unknown edit 'num_beams'. Known: bias, "),
        ("temperature=hot", "temperature must be a number, got 'hot'."),
    ],
)
@pytest.mark.usefixtures("often")
def test_a_branch_with_an_edit_of_no_known_name_or_type_is_not_made(
    edit: str, message: str
) -> None:
    output_of(WRITE)
    assert message in refused(EditError, f"runs branch w --at 4 --as b --set {edit}")
    assert "b " not in output_of("runs")


@pytest.mark.parametrize("edit", ["top_p=4", "forbid=[99999]"])
@pytest.mark.usefixtures("often")
def test_a_branch_with_an_impossible_edit_names_the_fix(edit: str) -> None:
    output_of(WRITE)
    output_of(f"runs branch w --at 4 --as b --set {edit}")
    for _ in range(2):
        sentence = refused(EditError, "runs resume b --trust")
        assert "'b' cannot start. Delete it (ostinato runs delete b)" in sentence
    assert output_of("runs delete b --yes") == "Deleted b.\n"


def test_a_journal_that_was_moved_with_its_folder_is_found(folder: Path) -> None:
    save_tiny(folder / "old/tiny")
    os.chdir("old")
    output_of(WRITE)
    os.chdir(folder)
    os.rename("old", "new")
    with Journal("new/.ostinato/journal.db") as journal:
        config = config_of(journal.get("w"))
    assert isinstance(config, GenerateRun) and config.model == str(folder / "new/tiny")


# Jobs -------------------------------------------------------------------------------------------


def test_a_run_of_a_job_names_the_options_it_started_with(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(JobRun, "loop", scribe_loop)
    write_job(folder, ["Hello", "Thanks a lot", "A refund"])
    options = "--limit 2 --output other.jsonl --seed 3 --journal j.db"
    done = output_of(f"refine mail.toml {options} --fresh --json")
    assert json.loads(done.splitlines()[-1])["run"] == "mail"
    line = "runs resume mail --journal j.db"
    assert f"ostinato {line}\n" in output_of("runs show mail --journal j.db")
    again = output_of(f"refine mail.toml {options}")
    assert "The job is finished" in again and "  run      mail\n" in again
    assert f"ostinato refine mail.toml {options.replace('3', '4')}" in again.replace(
        "--limit 2 --output other.jsonl --journal j.db --fresh --seed 4", options.replace("3", "4")
    )
    assert "The job is finished" in output_of(line)


def test_an_older_run_of_a_job_names_the_newer_ones(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(JobRun, "loop", scribe_loop)
    write_job(folder, ["Hello", "Thanks a lot", "A refund"])
    output_of("refine mail.toml")
    output_of("refine mail.toml --fresh")
    output_of("refine mail.toml --fresh --limit 1 --output one.jsonl")
    assert "Newer runs of the same job: mail-3, mail-2." in output_of("why mail")
    assert output_of("why mail.toml").startswith("mail-3: 1 item done.")
    assert "Newer" not in output_of("why mail.toml")
    assert "m2: " in output_of("why mail-2 m2")
    assert "Resume that one: ostinato runs resume mail-2" in refused(RunError, "runs resume mail")
    assert "There is no run of other.toml" in refused(RunError, "why other.toml")
