"""A second driver is refused, requests arrive, and a forked child has no part in the run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ostinato.errors import RunError, RunLocked
from ostinato.loop.journal import Journal
from ostinato.loop.lock import RunLock, holder
from ostinato.loop.run import Run

HAMMER = Path(__file__).parent / "hammer.py"


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Journal(tmp_path / "journal.db").create("a", kind="Walk")


@pytest.fixture
def driven(run: Run) -> Iterator[subprocess.Popen[str]]:
    """A process that drives the run."""
    command = [sys.executable, str(HAMMER), str(run.journal.path), "a"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None and child.stdout.readline()
        yield child
        child.kill()
        child.communicate()


def test_a_second_driver_is_refused_and_told_who_drives(
    run: Run, driven: subprocess.Popen[str]
) -> None:
    with pytest.raises(RunLocked, match=f"driven by the process {driven.pid}.*runs pause a"):
        run.drive()
    with pytest.raises(RunLocked, match=f"driven by the process {driven.pid}"):
        run.journal.delete("a")
    driven.kill()
    driven.wait()
    run.drive().close()


def test_looking_at_the_lock_never_keeps_a_driver_out(run: Run) -> None:
    for _ in range(50):
        with run.drive():
            assert run.driver_pid == os.getpid()
        assert run.driver_pid is None


def test_a_request_reaches_the_driver_and_is_done_once(run: Run) -> None:
    with run.drive() as driver:
        assert driver.requests() == []
        other = Journal(run.journal.path).get("a")
        other.request("change", {"rate": 0.5})
        other.request("pause")
        deadline = time.monotonic() + 10
        while len(driver.requests()) < 2 and time.monotonic() < deadline:
            time.sleep(0.01)
        change, pause = driver.requests()
        assert (change.action, change.edits, pause.action) == ("change", {"rate": 0.5}, "pause")
        driver.event("change", 3, {"rate": 0.5}, request=change)
        assert driver.requests() == [pause]
        driver.done(pause)
        assert driver.requests() == []
    with run.drive() as driver:
        assert driver.requests() == []


def test_a_change_waits_for_the_next_driver_and_a_pause_does_not(run: Run) -> None:
    with pytest.raises(RunError, match="To pause a run, it must be running; 'a' is new"):
        run.request("pause")
    with run.drive():
        run.request("stop")
    run.request("change", {"rate": 2})
    with run.drive() as driver:
        assert [request.action for request in driver.requests()] == ["change"]


def test_a_forked_child_neither_drives_nor_holds_the_run(run: Run) -> None:
    driver = run.drive()
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
