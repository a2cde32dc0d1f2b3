"""One log: every entry of a run has a number, and who follows them misses and repeats nothing."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ostinato.journal import Journal, LogEntry, RunSession, StepRecord

TESTS = Path(__file__).parent


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path / "journal.db")


def names(entries: list[LogEntry]) -> list[str]:
    return [
        f"{entry.entry} {getattr(entry, 'name', '')}{getattr(entry, 'tick', '')}"
        for entry in entries
    ]


def test_entries_are_in_the_order_in_which_they_were_put(journal: Journal) -> None:
    run = journal.create("a", kind="Walk")
    with RunSession(run) as session:
        session.step(1, 1, {"x": 1})
        session.step(2, 2, {"x": 2})
        session.event("answer", 2, {})
        session.step(3, 3, {"x": 3})
        session.result("k", {"text": "a"})
        session.step(4, 4, {"x": 4})
        session.checkpoint(4, 4, {"n": 4})
        session.call("c", lambda: 5)
        session.finish("stopped", None, 4, 4)
    journal.note(run, "k", "accepted")
    entries = list(run.log())
    assert [entry.seq for entry in entries] == list(range(1, 12))
    assert names(entries) == [
        "event start1",
        "step 1",
        "step 2",
        "event answer2",
        "step 3",
        "result 3",
        "step 4",
        "checkpoint 4",
        "call 4",
        "event finish4",
        "note ",
    ]
    assert run.now().seq == 11
    for after in range(12):
        assert list(run.log(after)) == entries[after:]
    assert [(each.seq, each.tick) for each in run.steps()] == [(2, 1), (3, 2), (5, 3), (7, 4)]
    assert entries[5].to_json() == {
        "seq": 6,
        "entry": "result",
        "tick": 3,
        "key": "k",
        "row": {"text": "a"},
        "created": entries[5].created,  # type: ignore[union-attr]
    }


def test_pages_of_every_table_come_whole(journal: Journal) -> None:
    run = journal.create("a", kind="Walk")
    with RunSession(run) as session:
        for tick in range(1, 9001):
            session.step(tick, tick, {"x": tick})
            if tick % 50 == 0:
                session.event("e", tick, {"n": tick})
                session.result(f"k{tick}", {"n": tick})
    entries = list(run.log())
    assert [entry.seq for entry in entries] == list(range(1, 9000 + 360 + 2))
    assert [e.tick for e in entries if isinstance(e, StepRecord)] == list(range(1, 9001))
    middle = entries[4321].seq
    assert list(run.log(middle)) == entries[4322:]


def test_what_a_resumed_run_repeats_is_not_in_the_log_again(journal: Journal) -> None:
    run = journal.create("a", kind="Walk")
    with RunSession(run) as session:
        for tick in range(1, 8):
            session.step(tick, tick, {"x": tick})
        session.result("k", {"n": 1})
        session.event("answer", 7, {})
    before = list(run.log())
    with RunSession(run) as session:
        for tick in range(5, 10):
            session.step(tick, tick, {"x": tick})
            if tick == 7:
                session.result("k", {"n": 1})
                session.event("answer", 7, {})
    entries = list(run.log())
    assert entries[: len(before)] == before
    assert names(entries[len(before) :]) == ["event start5", "step 8", "step 9"]
    assert [entry.seq for entry in entries] == list(range(1, len(entries) + 1))


def test_steps_that_were_not_kept_at_first_come_later_in_the_log(journal: Journal) -> None:
    run = journal.create("a", kind="Walk")
    with RunSession(run, keep="results") as session:
        for tick in range(1, 5):
            session.step(tick, tick, {"x": tick})
        session.result("k", {"n": 1})
    seen = run.now().seq
    with RunSession(run) as session:
        for tick in range(3, 6):
            session.step(tick, tick, {"x": tick})
    assert names(list(run.log(seen))) == ["event start3", "step 3", "step 4", "step 5"]


def test_a_branch_goes_on_with_the_numbers_of_its_parent(journal: Journal) -> None:
    run = journal.create("a", kind="Walk")
    with RunSession(run) as session:
        session.event("until", 0, {"until": "Steps(9)"})
        session.step(1, 1, {"x": 1})
        session.result("early", {"n": 1})
        session.call("c", lambda: "answer")
        session.step(2, 2, {"x": 2})
        session.checkpoint(2, 2, {"n": 2})
        session.call("in step 3", lambda n: n, {"n": 3})
        session.step(3, 3, {"x": 3})
        session.result("late", {"n": 2})
        session.call("late", lambda: "later")
    journal.note(run, "early", "edited", value={"n": 7}, by="ada")
    journal.note(run, "late", "rejected")
    branch = journal.branch(run, "b")
    copied = list(branch.log())
    parent = {entry.seq: entry for entry in run.log()}
    assert [entry.entry for entry in copied] == ["event", "result", "call", "checkpoint", "note"]
    assert all(parent[entry.seq].entry == entry.entry for entry in copied)
    assert branch.now().seq == copied[-1].seq
    assert dict(branch.results(edited=True)) == {"early": {"n": 7}}
    with RunSession(branch) as session:
        assert session.call("in step 3", lambda n: n, {"n": 4}) == 4  # a branch may go other ways
        session.step(3, 3, {"x": 9})
        assert session.call("c", lambda: "another") == "answer"
        assert session.call("late", lambda: "anew") == "anew"
    own = list(branch.log(copied[-1].seq))
    assert [entry.seq - copied[-1].seq for entry in own] == [1, 2, 3, 4]


def test_many_who_write_to_one_log_get_numbers_of_their_own(journal: Journal) -> None:
    run = journal.create("a", kind="Walk")

    def notes(by: str) -> list[int]:
        with Journal(journal.path) as own:
            same = own.get("a")
            return [own.note(same, "k", "accepted", by=by) for _ in range(25)]

    with RunSession(run) as session, ThreadPoolExecutor(4) as pool:
        session.result("k", {"n": 1})
        session.flush()
        people = [pool.submit(notes, by) for by in "abcd"]
        tick = 0
        while not all(each.done() for each in people):
            tick += 1
            session.step(tick, tick, {"x": tick})
            session.call(f"c{tick}", lambda: None)
    given = [number for each in people for number in each.result()]
    entries = list(run.log())
    assert [entry.seq for entry in entries] == list(range(1, 1 + 1 + 100 + 2 * tick + 1))
    assert sorted(given) == [entry.seq for entry in entries if entry.entry == "note"]
    for each in people:
        assert each.result() == sorted(each.result())


WATCHER = """
import sys, time
from ostinato.journal import Journal
run, seen, found = Journal(sys.argv[1]).get("a"), 0, []
print("watching", flush=True)
until = time.monotonic() + 60
while time.monotonic() < until:
    for entry in run.log(seen):
        assert entry.seq == seen + 1, (entry, seen)
        seen = entry.seq
        found.append((entry.entry, getattr(entry, "tick", 0)))
    if found and found[-1][0] == "call":
        break
steps = [tick for kind, tick in found if kind == "step"]
assert steps == list(range(1, len(steps) + 1)), steps
print(seen, len(steps), sum(kind == "result" for kind, _ in found))
"""


def test_a_watcher_of_a_fast_loop_sees_every_entry_once(journal: Journal) -> None:
    """A real process polls while this one writes, pauses, and repeats steps."""
    run = journal.create("a", kind="Walk")
    watcher = subprocess.Popen(
        [sys.executable, "-W", "error", "-c", WATCHER, str(journal.path)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert watcher.stdout is not None and watcher.stdout.readline()
    for first, last in ((1, 6000), (5000, 9000)):
        with RunSession(run) as session:
            for tick in range(first, last + 1):
                session.step(tick, tick, {"x": tick})
                if tick % 10 == 0:
                    session.result(f"k{tick}", {"n": tick})
                if tick % 100 == 0:
                    session.flush()
                    journal.note(run, f"k{tick}", "accepted")
                if tick % 1000 == 0:
                    time.sleep(0.02)
            if last == 9000:
                session.call("end", lambda: None)
    output = watcher.communicate(timeout=60)[0]
    assert watcher.returncode == 0
    assert output.split() == [str(run.now().seq), "9000", "900"]
