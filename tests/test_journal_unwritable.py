"""A journal that cannot be written is read all the same; another program's file stays as it is."""

from __future__ import annotations

import os
import resource
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from ostinato.errors import RunError
from ostinato.journal import Journal, Run, removal
from ostinato.journal.lock import RunLock, holder
from ostinato.journal.sqlite import connection, migrations
from ostinato.journal.sqlite.database import Database

ROOM = 500  # bytes of a file: less than any page of a database


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A journal with the run `a`, closed."""
    path = tmp_path / "journal.db"
    with Journal(path) as journal:
        journal.create("a", kind="Walk")
    return path


@contextmanager
def no_room() -> Iterator[None]:
    """Let no file grow, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (ROOM, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_journal_is_read_where_nothing_can_be_written(path: Path) -> None:
    before = path.read_bytes()
    with no_room():
        journal = Journal(path)
        assert [run.name for run in journal.runs()] == ["a"]
        with pytest.raises(RunError, match="must be a SQLite database that can be written, got"):
            journal.create("b", kind="Walk")
        with pytest.raises(RunError, match="must be a SQLite database that can be written, got"):
            journal.drive(journal.get("a"))
    assert path.read_bytes() == before
    journal.create("b", kind="Walk")  # there is room again
    journal.close()


def test_a_new_journal_without_room_is_refused(tmp_path: Path) -> None:
    with no_room(), pytest.raises(RunError, match="must be a SQLite database that can be written"):
        Journal(tmp_path / "journal.db")


def test_entries_that_cannot_be_shown_are_told(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal(path)
    journal.create("b", kind="Walk")  # in the log beside the file
    copy = path.with_name("copy.db")
    shutil.copy(path, copy)
    shutil.copy(f"{path}-wal", f"{copy}-wal")
    journal.close()
    with (
        no_room(),
        pytest.warns(UserWarning, match=r"its latest entries, in copy\.db-wal, are not"),
    ):
        assert "b" not in [run.name for run in Journal(copy).runs()]


def test_an_older_schema_is_not_read_where_it_cannot_be_migrated(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = len(migrations.MIGRATIONS)
    monkeypatch.setattr(migrations, "MIGRATIONS", (*migrations.MIGRATIONS, lambda connection: None))
    wrong = rf"must have schema {now + 1} .* got {now}\. Copy its folder"
    with no_room(), pytest.raises(RunError, match=wrong):
        Journal(path)


def test_what_locks_a_journal_for_long_is_told(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "BUSY_SECONDS", 0.05)
    journal = Journal(path)
    run = journal.get("a")
    with sqlite3.connect(path, isolation_level=None) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(RunError, match="could not be written: database is locked"):
            journal.create("b", kind="Walk")
        with pytest.raises(RunError, match="could not be written: database is locked"):
            journal.drive(run)
        assert [each.name for each in journal.runs()] == ["a"]
        other.execute("ROLLBACK")
    other.close()
    journal.close()


def test_a_lock_is_waited_for_once_and_never_read_past(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "BUSY_SECONDS", 0.2)
    with sqlite3.connect(path, isolation_level=None) as other:
        other.execute("PRAGMA locking_mode = EXCLUSIVE")
        other.execute("UPDATE runs SET tick = 3")
        began = time.monotonic()
        with pytest.raises(RunError, match=r"database is locked\. End the program that locks it"):
            Journal(path)
        assert time.monotonic() - began < 0.5
    other.close()


def full_until(monkeypatch: pytest.MonkeyPatch, folder: Path, files: int) -> None:
    """Let rows be deleted only when a run has no more than so many checkpoints left."""
    delete = removal.delete_rows

    def without_room(database: Database, runs: Sequence[Run]) -> None:
        if len(list(folder.glob("*.safetensors"))) > files:
            raise RunError("the disk is full")
        delete(database, runs)

    monkeypatch.setattr(removal, "delete_rows", without_room)


@pytest.mark.parametrize("files", [0, 2])
def test_a_full_disk_does_not_keep_a_run_from_being_deleted(
    path: Path, monkeypatch: pytest.MonkeyPatch, files: int
) -> None:
    journal = Journal(path)
    with journal.drive(run := journal.get("a")) as session:
        for tick in (1, 2, 3):
            session.checkpoint(tick, tick, {"n": tick})
    full_until(monkeypatch, run.folder, files)
    with pytest.raises(RunError, match="the disk is full"):
        journal.delete("a")  # there is room: another reason
    assert len(run.checkpoints()) == 3 and run.load()
    monkeypatch.setattr(removal, "is_full", lambda folder: True)
    journal.delete("a")
    assert not run.folder.exists() and journal.find("a") is None
    journal.close()


def test_a_run_that_a_full_disk_keeps_has_lost_its_oldest_checkpoints_first(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = Journal(path)
    with journal.drive(run := journal.get("a")) as session:
        for tick in (1, 2, 3):
            session.checkpoint(tick, tick, {"n": tick})
    left = []

    def refuse(database: Database, runs: Sequence[Run]) -> None:
        left.append([row.tick for row in run.checkpoints() if row.path.exists()])
        raise RunError("the disk is full")

    monkeypatch.setattr(removal, "delete_rows", refuse)
    monkeypatch.setattr(removal, "is_full", lambda folder: True)
    with pytest.raises(RunError, match="the disk is full"):
        journal.delete("a")
    assert left[:4] == [[1, 2, 3], [2, 3], [3], []]
    journal.close()


# Other programs' and other users' files -----------------------------------------------------------


def app(path: Path, statement: str = "CREATE TABLE users (name)", mode: str = "DELETE") -> None:
    connection = sqlite3.connect(path)
    connection.execute(f"PRAGMA journal_mode = {mode}")
    connection.execute(statement)
    connection.commit()
    connection.close()


@pytest.mark.parametrize(
    ("statement", "mode"),
    [
        ("CREATE TABLE users (name)", "DELETE"),
        ("CREATE TABLE users (name)", "WAL"),
        ("CREATE TABLE migrations (version INTEGER)", "DELETE"),  # as of several web frameworks
        ("CREATE TABLE runs (id)", "DELETE"),
    ],
)
def test_another_programs_database_is_refused_and_stays_as_it_is(
    tmp_path: Path, statement: str, mode: str
) -> None:
    path = tmp_path / "app.db"
    app(path, statement, mode)
    before = path.read_bytes()
    with pytest.raises(RunError, match="It belongs to another program: name another with"):
        Journal(path)
    command = [sys.executable, "-m", "ostinato", "runs", "--journal", str(path)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (result.returncode, result.stdout) == (2, "")
    assert "belongs to another program" in result.stderr
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["app.db"]


def test_another_programs_log_is_not_written_into_its_database(tmp_path: Path) -> None:
    path = tmp_path / "app.db"
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("CREATE TABLE users (name)")
    before = path.read_bytes()
    with pytest.raises(RunError, match="the tables users"):
        Journal(path)
    assert path.read_bytes() == before
    connection.close()


def test_an_empty_file_becomes_a_journal(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    path.touch()
    with Journal(path) as journal:
        assert journal.runs() == []


def refused(monkeypatch: pytest.MonkeyPatch, function: str, file: Path) -> None:
    """Let a function of `os` refuse a file, as another user's."""
    original: Callable[..., object] = getattr(os, function)

    def refuse(path: object, *rest: object, **more: object) -> object:
        if os.fspath(path) == str(file):  # type: ignore[call-overload]
            raise PermissionError(13, "Permission denied", str(file))
        return original(path, *rest, **more)

    monkeypatch.setattr(os, function, refuse)


@pytest.mark.parametrize("function", ["open", "mkdir"])
def test_another_users_run_cannot_be_driven(
    path: Path, monkeypatch: pytest.MonkeyPatch, function: str
) -> None:
    journal = Journal(path)
    run = journal.get("a")
    refused(monkeypatch, function, run.folder / "lock" if function == "open" else run.folder)
    for use in (lambda: journal.drive(run), lambda: journal.delete("a")):
        with pytest.raises(RunError, match=r"must have a file .*/lock that you may write, got: P"):
            use()
    journal.close()


def test_a_lock_that_cannot_be_read_is_taken_for_one_that_is_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = RunLock(tmp_path / "lock", "a")
    lock.release()
    assert holder(tmp_path / "lock") is None
    refused(monkeypatch, "open", tmp_path / "lock")
    assert holder(tmp_path / "lock") == 0


def test_a_lock_is_taken_where_its_holder_cannot_be_recorded(tmp_path: Path) -> None:
    with no_room():
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
        lock = RunLock(tmp_path / "lock", "a")
        lock.release()
