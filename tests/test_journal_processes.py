"""A second driver is refused, requests arrive, and a forked child has no part in the run."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ostinato.errors import RunError, RunLocked
from ostinato.journal import Journal
from ostinato.journal.lock import RunLock, holder
from ostinato.journal.run import Run
from ostinato.journal.session import RunSession

HAMMER = Path(__file__).parent / "hammer.py"


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path / "journal.db")


@pytest.fixture
def run(journal: Journal) -> Run:
    return journal.create("a", kind="Walk")


@pytest.fixture
def driven(run: Run) -> Iterator[subprocess.Popen[str]]:
    """A process that drives the run."""
    command = [sys.executable, str(HAMMER), str(run.database.path), "a"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None and child.stdout.readline()
        yield child
        child.kill()
        child.communicate()


def test_a_second_driver_is_refused_and_told_who_drives(
    journal: Journal, run: Run, driven: subprocess.Popen[str]
) -> None:
    with pytest.raises(RunLocked, match=f"driven by the process {driven.pid}.*runs pause a"):
        RunSession(run)
    with pytest.raises(RunLocked, match=f"driven by the process {driven.pid}"):
        journal.delete("a")
    driven.kill()
    driven.wait()
    RunSession(run).close()


def test_looking_at_the_lock_never_keeps_a_driver_out(run: Run) -> None:
    for _ in range(50):
        with RunSession(run):
            assert run.driver_pid == os.getpid()
        assert run.driver_pid is None


def test_a_request_reaches_the_driver_and_is_done_once(journal: Journal, run: Run) -> None:
    with RunSession(run) as driver:
        assert driver.inbox == []
        with Journal(journal.path) as other:
            other.request(other.get("a"), "change", {"rate": 0.5})
            other.request(other.get("a"), "pause")
        deadline = time.monotonic() + 10
        while len(driver.inbox) < 2 and time.monotonic() < deadline:
            time.sleep(0.01)
        change, pause = driver.inbox
        assert (change.action, change.edits, pause.action) == ("change", {"rate": 0.5}, "pause")
        driver.event("change", 3, {"rate": 0.5}, request=change)
        assert driver.inbox == [pause]
        driver.done(pause)
        assert driver.inbox == []
    with RunSession(run) as driver:
        assert driver.inbox == []


def test_a_change_waits_for_the_next_driver_and_a_pause_does_not(
    journal: Journal, run: Run
) -> None:
    with pytest.raises(RunError, match="To pause a run, it must be running; 'a' is new"):
        journal.request(run, "pause")
    with RunSession(run):
        journal.request(run, "stop")
    journal.request(run, "change", {"rate": 2})
    with RunSession(run) as driver:
        assert [request.action for request in driver.inbox] == ["change"]


def test_a_forked_child_neither_drives_nor_holds_the_run(run: Run) -> None:
    driver = RunSession(run)
    driver.step(1, 1, {"loss": 1.0})
    child = os.fork()
    if child == 0:
        try:
            driver.step(2, 2, {"loss": 1.0})
        except RunError as error:
            os._exit(0 if "A forked process cannot" in str(error) else 3)
        os._exit(4)
    assert os.waitpid(child, 0)[1] == 0
    asleep = os.fork()
    if asleep == 0:
        time.sleep(30)
        os._exit(0)
    driver.step(2, 2, {"loss": 1.0})
    driver.close()
    assert run.tick == 2 and not run.driven
    os.kill(asleep, 9)
    os.waitpid(asleep, 0)


def test_a_released_lock_is_free_while_a_forked_child_has_its_file_open(tmp_path: Path) -> None:
    lock = RunLock(tmp_path / "lock", "a")
    child = os.fork()
    if child == 0:
        time.sleep(30)  # it inherited the file and has not closed it
        os._exit(0)
    lock.release()
    try:
        assert holder(tmp_path / "lock") is None
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_a_killed_process_leaves_its_id_and_no_lock(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    child = os.fork()
    if child == 0:
        RunLock(path, "a")
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    assert str(child) in path.read_text()
    assert holder(path) is None
    lock = RunLock(path, "a")
    assert holder(path) == os.getpid()
    lock.release()
    assert holder(path) is None


def test_processes_that_look_at_once_do_not_take_each_other_for_the_driver(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    path.write_bytes(b"\x00999999")  # of a process that was killed
    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(holder, [path] * 2000)) == {None}


def test_a_file_system_without_locks_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(file: int, *, blocking: bool) -> bool:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("filelock.lock_descriptor", refuse)
    with pytest.raises(RunError, match="file system with locks, got: No locks available"):
        RunLock(tmp_path / "lock", "a")
