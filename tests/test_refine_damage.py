"""Whatever happens to a job's files while it works ends in one sentence, and loses nothing."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from refine_scribe import write_job

from ostinato.cli.jobs.check import check
from ostinato.cli.jobs.refine import refine
from ostinato.errors import InputError, RunError
from ostinato.journal import Journal
from ostinato.loop import sigterm_interrupts
from ostinato.output_files import LEFT_SECONDS, part_of, write_whole
from ostinato.refine import open_job, read_job
from ostinato.refine.job.job_items import JobItems
from ostinato.refine.job.job_run import JobRun

COUNT = 300

ROWS = 0x0D
"""With what a page of SQLite begins that holds rows of a table."""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a job whose rule answers every item."""
    monkeypatch.chdir(tmp_path)
    write_job(tmp_path, [f"thanks for number {n}" for n in range(COUNT)])
    return tmp_path


def run(*options: str) -> Result:
    result = CliRunner().invoke(refine, ["mail.toml", *options])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def index() -> Path:
    (path,) = Path(".ostinato/items").glob("*.db")
    return path


def replies() -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path("mail.replies.jsonl").read_text().splitlines()]


# The index --------------------------------------------------------------------------------------


def overwritten(path: Path) -> None:
    """Overwrite the last page of rows: the file still opens, and its keys can be counted."""
    content = bytearray(path.read_bytes())
    page = max(at for at in range(4096, len(content), 4096) if content[at] == ROWS)
    content[page : page + 4096] = b"\x55" * 4096
    path.write_bytes(content)


def of_another_form(path: Path) -> None:
    path.unlink()
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE items (number INTEGER)")
    connection.commit()
    connection.close()


def cut(path: Path) -> None:
    os.truncate(path, 5000)


@pytest.mark.parametrize("damage", [cut, of_another_form, Path.unlink])
def test_an_index_that_cannot_be_opened_is_made_anew(
    folder: Path, damage: Callable[[Path], None]
) -> None:
    run()
    damage(index())
    assert "The job is finished" in run().output
    assert len(replies()) == COUNT


def test_an_index_that_is_damaged_inside_is_named_and_can_be_deleted(folder: Path) -> None:
    run()
    before = Path("mail.replies.jsonl").read_bytes()
    overwritten(index())
    Path("mail.replies.jsonl").unlink()  # so that the items are read
    with pytest.raises(RunError, match=rf"recorded in \S*{index().name}, got: .*Delete that file"):
        run()
    index().unlink()
    assert "The job is finished" in run().output
    assert Path("mail.replies.jsonl").read_bytes() == before


def test_the_damaged_one_of_two_indexes_is_named(folder: Path) -> None:
    run()
    damaged = index()
    overwritten(damaged)
    with Path("messages.jsonl").open("a") as file:
        file.write('{"id": "new", "message": "thanks"}\n')
    with pytest.raises(RunError, match=rf"recorded in \S*{damaged.name}, got"):
        run("--update")
    damaged.unlink()
    with pytest.raises(InputError, match="perhaps changed: the index of the run's items is missi"):
        run()
    assert run("--update").exit_code == 0 and len(replies()) == COUNT + 1


# The input --------------------------------------------------------------------------------------


@pytest.mark.parametrize("taken", [1, 100, COUNT - 1])
def test_no_item_is_taken_from_an_input_that_has_changed(folder: Path, taken: int) -> None:
    with Journal(folder / "journal.db") as journal:
        items = iter(open_job(read_job(folder / "mail.toml"), journal).items)
        for _ in range(taken):
            next(items)
        # Within what is read ahead, and with the same lines.
        text = Path("messages.jsonl").read_text().replace("thanks", "please")
        Path("messages.jsonl").write_text(text)
        with pytest.raises(InputError, match="The input must stay as it is while the job works"):
            next(items)


def test_an_input_that_ends_early_is_told(folder: Path) -> None:
    with Journal(folder / "journal.db") as journal:
        items: JobItems = open_job(read_job(folder / "mail.toml"), journal).items
        coming = iter(items)
        next(coming)
        os.truncate("messages.jsonl", 0)
        with pytest.raises(InputError, match="The input must stay as it is while the job works"):
            list(coming)


def test_numbers_that_are_not_finite_are_null(folder: Path) -> None:
    text = '{"id": "a", "message": "thanks NaN", "n": NaN, "m": [-Infinity, 1e999, 1e100]}\n'
    Path("messages.jsonl").write_text(text)
    assert run().exit_code == 0
    (line,) = replies()
    assert line["columns"] == {
        "id": "a",
        "message": "thanks NaN",
        "n": None,
        "m": [None, None, 1e100],
    }


# What a killed process leaves -------------------------------------------------------------------


def test_a_part_that_a_killed_process_left_is_deleted_and_nothing_else(tmp_path: Path) -> None:
    old, young = tmp_path / ".a.jsonl.abcdefgh.part", tmp_path / ".a.jsonl.hgfedcba.part"
    names = (".a.jsonl.bak", ".a.jsonl.part", ".b.jsonl.abcdefgh.part")
    others = [tmp_path / name for name in names]
    for path in (old, young, *others):
        path.write_text("x")
    for path in (old, *others):
        os.utime(path, (0, time.time() - LEFT_SECONDS - 1))
    write_whole(tmp_path / "a.jsonl", ["new"])
    assert not old.exists() and young.exists() and all(path.exists() for path in others)
    assert (tmp_path / "a.jsonl").read_text() == "new"


def test_an_error_leaves_no_part(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), part_of(tmp_path / "a") as part:
        part.file.write(b"x")
        raise ZeroDivisionError
    assert not list(tmp_path.iterdir())


def test_sigterm_while_the_output_is_written_ends_like_ctrl_c(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = JobRun.results_with_items

    def terminated(self: JobRun) -> Iterator[Any]:
        for number, each in enumerate(results(self)):
            if number == 100:
                os.kill(os.getpid(), signal.SIGTERM)
            yield each

    with monkeypatch.context() as patch:
        patch.setattr(JobRun, "results_with_items", terminated)
        ended = run()
    assert ended.exit_code == 130 and "Interrupted." in ended.output
    assert not list(folder.glob(".mail*")) and not Path("mail.replies.jsonl").exists()
    assert "The job is finished" in run().output and len(replies()) == COUNT


def test_sigterm_is_handled_as_before_afterwards() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt), sigterm_interrupts():
        signal.raise_signal(signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_run_that_takes_over_every_reply_has_ended(folder: Path) -> None:
    run()
    run("--output", "other.jsonl", "--limit", "3")
    with Journal() as journal:
        assert [(each.status, each.count_results()) for each in journal.runs()] == [
            ("stopped", 3),
            ("stopped", COUNT),
        ]


# `ostinato check` -------------------------------------------------------------------------------


def test_check_reads_columns_of_the_input_by_id_and_a_pipe_of_lines(folder: Path) -> None:
    job = Path("mail.toml").read_text()
    Path("mail.toml").write_text(job + '\n[[check]]\nkind = "contains"\ncolumn = "message"\n')
    rows = [{"id": f"m{n}", "reply": f"Oh, thanks for number {n}"} for n in (7, 3, 299)]
    Path("texts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    result = CliRunner().invoke(check, ["mail.toml", "texts.jsonl"])
    assert result.exit_code == 0, result.output
    assert "3 of 3 passed every check." in result.output
    Path("mail.toml").write_text(job)
    reader, writer = os.pipe()
    os.write(writer, b"You are welcome.\n\nYou are obviously welcome.\n")
    os.close(writer)
    try:
        result = CliRunner().invoke(check, ["mail.toml", f"/dev/fd/{reader}"])
    finally:
        os.close(reader)
    assert result.exit_code == 1 and "1 of 2 passed every check." in result.output
