"""A journal that is damaged, or somebody else's, is told in a sentence, and leads nowhere else."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from click.testing import CliRunner

from ostinato.cli.main import cli
from ostinato.errors import RunError, Unanswered
from ostinato.journal import Journal

WRONG: dict[str, list[object]] = {
    "runs.id": ["../..", None, "x"],
    "runs.spec": ["null", "[]", "{", "[" * 100_000],
    "runs.stopped": ['{"kind":"zap","sentence":""}', "5"],
    "runs.tick": ["x", -1, (1 << 63) - 1],
    "runs.created": ["x", b"\xff"],
    "runs.seq": ["x"],
    "steps.data": ["{}", "[]", '{"ticks":"x","positions":1,"reports":[{}]}', "1" * 5000],
    "steps.last": ["x", (1 << 63) - 1],
    "events.data": ["5"],
    "results.row": ["[1]"],
    "checkpoints.file": ["", "../x", b"x", "x" * 5000],
    "checkpoints.bytes": ["x"],
    "requests.data": ["{}", '{"question":5,"options":[]}', '{"question":"","options":[1]}'],
    "calls.arguments": ["{"],
    "notes.value": ["["],
}


@pytest.mark.parametrize("column", WRONG)
def test_a_wrong_value_is_told_in_a_sentence(tmp_path: Path, column: str) -> None:
    path = tmp_path / "deep" / "journal.db"
    with Journal(path) as journal:
        run = journal.create("a", kind="Walk")
        with journal.drive(run) as session:
            session.step(1, 1, {"x": 1})
            session.event("until", 1, {"until": "Steps(2)"})
            session.result("k", {"text": "t"})
            session.call("c", lambda: 1)
            session.checkpoint(1, 1, {"x": 1})
            with pytest.raises(Unanswered):
                session.ask("q", "Which?", seconds=0)
        journal.note(run, "k", "edited", value={"text": "s"})
    table, name = column.split(".")
    commands = ["show a", "export a", "branch a --as b", "answer a x", "delete a --yes"]
    for value in WRONG[column]:
        connection = sqlite3.connect(path)
        connection.execute(f"UPDATE {table} SET {name} = ?", (value,))
        connection.commit()
        connection.close()
        told = 0
        for command in ["--journal", *commands]:
            words = ["runs", *command.split(), *(["--journal"] * (command in commands)), str(path)]
            if command.startswith(("answer", "delete", "branch")) and table != "runs":
                continue  # they would change it
            result = CliRunner().invoke(cli, words)
            if result.exception is not None and not isinstance(result.exception, SystemExit):
                assert isinstance(result.exception, RunError), (value, command)
                told += 1
                assert len(str(result.exception)) < 600
        assert told, value
    assert tmp_path.is_dir() and path.exists()  # no id leads to another folder


def test_runs_that_come_from_each_other_are_read_once(tmp_path: Path) -> None:
    with Journal(tmp_path / "journal.db") as journal:
        run = journal.create("a", kind="Walk")
        with journal.drive(run) as session:
            session.step(1, 1, {"x": 1})
        with journal._database.write() as connection:
            connection.execute("UPDATE runs SET parent = id, parent_tick = 1")
        assert run.parent_run() is None
        assert [step.tick for step in run.history()] == [1]


def test_a_folder_is_no_journal(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="must be a file, got a folder"):
        Journal(tmp_path)
