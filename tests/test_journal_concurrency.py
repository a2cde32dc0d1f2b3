"""Many processes read a journal while one writes; a kill at any moment loses nothing."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hammer import state_at

from ostinato.journal import Journal
from ostinato.journal.run import Run

TESTS = Path(__file__).parent
ENVIRONMENT = {
    **os.environ,
    "PYTHONPATH": os.pathsep.join([str(TESTS), *(entry for entry in sys.path if entry)]),
}


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    with Journal(tmp_path / "journal.db") as journal:
        yield journal


def hammering(journal: Journal, name: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "hammer", str(journal.path), name],
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        text=True,
    )


READER = """
import sys, time
from ostinato.journal import Journal
run, tick, looks, until = Journal(sys.argv[1]).get("a"), 0, 0, time.monotonic() + float(sys.argv[2])
while time.monotonic() < until:
    now = run.now()
    assert now.tick >= tick, (now.tick, tick)
    tick = now.tick
    steps = [step.tick for step in run.steps(after=tick - 50)]
    assert steps == list(range(steps[0], steps[-1] + 1)) and steps[-1] >= tick, steps
    keys = [key for key, _ in run.results()]
    assert keys == [f"k{3 * n}" for n in range(1, len(keys) + 1)], keys
    found = run.load()
    assert found is None or found[1]["n"] == found[0].tick
    seqs = [entry.seq for entry in run.log()]
    assert seqs == sorted(set(seqs)), seqs
    looks += 1
print(looks)
"""


def test_many_processes_read_while_one_writes(journal: Journal) -> None:
    run = journal.create("a", kind="Walk")
    writer = hammering(journal, "a")
    wait_for(run, 20)
    readers = [
        subprocess.Popen(
            [sys.executable, "-W", "error", "-c", READER, str(journal.path), "2"],
            env=ENVIRONMENT,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(6)
    ]
    looks = [int(reader.communicate(timeout=60)[0]) for reader in readers]
    assert writer.poll() is None
    writer.kill()
    writer.communicate()
    assert min(looks) > 0
    assert run.status == "interrupted"


def wait_for(run: Run, tick: int) -> None:
    deadline = time.monotonic() + 60
    while run.tick < tick:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_many_processes_make_a_journal_and_runs_in_it_at_once(tmp_path: Path) -> None:
    code = (
        "import sys; from ostinato.journal import Journal, RunSession\n"
        "run = Journal(sys.argv[1]).create(sys.argv[2], kind='Walk')\n"
        "with RunSession(run) as driver:\n"
        "    for tick in range(1, 201): driver.step(tick, tick, {'loss': 1.0})\n"
        "    driver.finish('paused', None, 200, 200)\n"
    )
    path = tmp_path / "journal.db"
    children = [
        subprocess.Popen([sys.executable, "-c", code, str(path), f"run{n}"], env=ENVIRONMENT)
        for n in range(6)
    ]
    assert [child.wait(60) for child in children] == [0] * 6
    with Journal(path) as journal:
        assert sorted(run.name for run in journal.runs()) == [f"run{n}" for n in range(6)]
        assert all(len(list(run.steps())) == 200 for run in journal.runs())


def kill_again_and_again(journal: Journal, kills: int, seed: int) -> None:
    """Kill a driver at random moments; hold the journal to its word after each."""
    run = journal.create("a", kind="Walk")
    dice = random.Random(seed)
    acknowledged: list[str] = []
    saved = 0
    for _ in range(kills):
        writer = hammering(journal, "a")
        assert writer.stdout is not None
        lines = [writer.stdout.readline()]  # it drives now
        time.sleep(dice.uniform(0, 0.25))
        writer.kill()
        lines += writer.communicate()[0].splitlines()
        whole = [line.split() for line in lines if line.strip()]
        acknowledged += [word[1] for word in whole if word[0] == "r" and word[1:]]
        saved = max([saved, *(int(word[1]) for word in whole if word[0] == "c" and word[1:])])
        assert_holds(run, acknowledged, saved)
    assert saved > 0 and acknowledged


def assert_holds(run: Run, acknowledged: list[str], saved: int) -> None:
    """Whatever was acknowledged is there, once; the last checkpoint is whole."""
    with Journal(run.database.path) as fresh:
        assert fresh._database.query("PRAGMA integrity_check") == [("ok",)]
        again = fresh.get("a")
        rows = list(again.results())
        keys = [key for key, _ in rows]
        assert set(acknowledged) <= set(keys) and len(keys) == len(set(keys))
        assert keys == [f"k{3 * n}" for n in range(1, len(keys) + 1)]
        assert all(row == {"text": f"answer {key[1:]}"} for key, row in rows)
        steps = [(step.tick, step.report["loss"]) for step in again.steps()]
        assert steps == [(n, 1 / n) for n in range(1, len(steps) + 1)]
        assert again.tick == len(steps)
        found = again.load()  # a damaged file would warn, and warnings are errors
        assert found is None or (found[0].tick >= saved and found[1] == state_at(found[0].tick))
        assert saved == 0 or found is not None
        assert not any(event.name == "differs" for event in again.events())
        assert again.status == "interrupted"


def test_a_killed_driver_loses_nothing_that_was_acknowledged(journal: Journal) -> None:
    kill_again_and_again(journal, kills=4, seed=0)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_fifty_killed_drivers_lose_nothing_that_was_acknowledged(journal: Journal) -> None:
    kill_again_and_again(journal, kills=50, seed=1)
