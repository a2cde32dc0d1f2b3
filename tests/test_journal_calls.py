"""A call is made once: its answer is on the disk before anyone acts on it, whatever is killed."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from ostinato.errors import CallError, InputError, RunError
from ostinato.journal import Journal, Run
from ostinato.journal.sqlite.tables import RunTables

TESTS = Path(__file__).parent


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path / "journal.db")


@pytest.fixture
def run(journal: Journal) -> Run:
    return journal.create("flow", kind="Flow")


class Server:
    """Counts how often it is asked."""

    def __init__(self) -> None:
        self.asked: list[object] = []

    def answer(self, question: str, **more: object) -> object:
        self.asked.append(question)
        return {"answer": question.upper(), "also": (1, 2)}


def test_a_call_is_made_once_and_its_answer_is_the_same_then_and_later(
    journal: Journal, run: Run
) -> None:
    server = Server()
    for _ in range(2):
        with journal.drive(run) as session:
            for _ in range(2):
                answer = session.call("ask/1", server.answer, {"question": "who?"})
                assert answer == {"answer": "WHO?", "also": [1, 2]}
            assert session.call("nothing", lambda: None) is None
    assert server.asked == ["who?"]
    calls = list(run.calls())
    assert [(each.path, each.arguments, each.answer) for each in calls] == [
        ("ask/1", {"question": "who?"}, {"answer": "WHO?", "also": [1, 2]}),
        ("nothing", {}, None),
    ]
    assert run.call("ask/1") == calls[0] and run.call("ask/2") is None
    assert list(run.calls(after=calls[0].seq)) == calls[1:]


def test_other_arguments_under_the_same_path_are_refused(journal: Journal, run: Run) -> None:
    with journal.drive(run) as session:
        session.call("ask/1", Server().answer, {"question": "who?", "n": 3})
    with (
        journal.drive(run) as session,
        pytest.raises(
            RunError,
            match=r"The call 'ask/1' of the run 'flow' must have the arguments with which it was "
            r"recorded, got new values for question \(was 'who\?', is 'why\?'\), n \(was 3, is "
            r"missing\), m \(was missing, is 1\)\. Give the call another path",
        ),
    ):
        session.call("ask/1", Server().answer, {"question": "why?", "m": 1})


def test_what_a_call_raises_is_raised_as_it_is_and_the_call_is_made_again(
    journal: Journal, run: Run
) -> None:
    answers = iter([ConnectionError("lost"), "there"])

    def ask() -> object:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    with journal.drive(run) as session, pytest.raises(ConnectionError, match="lost"):
        session.call("ask", ask)
    assert list(run.calls()) == []
    with journal.drive(run) as session:
        assert session.call("ask", ask) == "there"


def test_an_error_that_is_to_be_recorded_is_the_same_then_and_later(
    journal: Journal, run: Run
) -> None:
    def ask(n: int) -> object:
        raise ConnectionError(f"lost {n}")

    for later in (False, True):
        with (
            journal.drive(run) as session,
            pytest.raises(
                CallError, match="The call 'ask' has failed: ConnectionError: lost 1"
            ) as e,
        ):
            session.call("ask", (lambda n: 5) if later else ask, {"n": 1}, record_errors=True)
        assert e.value.path == "ask"
    (call,) = run.calls()
    assert (call.answer, call.error) == (None, "ConnectionError: lost 1")


@pytest.mark.parametrize(
    ("path", "function", "arguments", "message"),
    [
        ("", lambda: 1, {}, "The path of a call must be a text of 1 to 1000 characters, got ''."),
        ("a", lambda x: 1, {"x": object()}, "The arguments of the call 'a' must be made of"),
        ("a", object, {}, "The answer of the call 'a' must be made of numbers"),
    ],
)
def test_what_cannot_be_recorded_is_refused(
    journal: Journal,
    run: Run,
    path: str,
    function: type,
    arguments: dict[str, object],
    message: str,
) -> None:
    with journal.drive(run) as session, pytest.raises(InputError, match=message):
        session.call(path, function, arguments)
    assert list(run.calls()) == []


def test_threads_that_make_the_same_call_at_once_make_it_once(journal: Journal, run: Run) -> None:
    started, made = threading.Event(), []

    def slow() -> object:
        started.set()
        time.sleep(0.2)
        made.append(1)
        return ["answer"]

    with journal.drive(run) as session, ThreadPoolExecutor(8) as pool:
        first = pool.submit(session.call, "a", slow)
        started.wait(10)
        others = [pool.submit(session.call, "a", slow) for _ in range(6)]
        wrong = pool.submit(session.call, "a", slow, {"x": 1})
        assert [each.result(10) for each in [first, *others]] == [["answer"]] * 7
        with pytest.raises(RunError, match="must have the arguments"):
            wrong.result(10)
    assert made == [1]


def test_many_calls_at_once_share_syncs(
    journal: Journal, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    commits, commit = [], RunTables.commit

    def counted(*given: Any, **more: Any) -> None:
        commits.append(1)
        time.sleep(0.01)  # as a slow disk
        commit(*given, **more)

    monkeypatch.setattr(RunTables, "commit", counted)
    with journal.drive(run) as session, ThreadPoolExecutor(64) as pool:
        answers = list(pool.map(lambda n: session.call(f"c{n}", lambda n: n, {"n": n}), range(640)))
    assert answers == list(range(640))
    assert sorted(each.answer for each in run.calls()) == list(range(640))  # type: ignore[type-var]
    assert len(commits) < 640 / 8


def test_a_call_starts_a_run_once_and_goes_on_with_it(journal: Journal, run: Run) -> None:
    found: list[tuple[str, int]] = []

    def drive(child: Run) -> object:
        found.append((child.id, child.tick))
        with journal.drive(child) as session:
            session.step(child.tick + 1, child.tick + 1, {"x": 1})
        if len(found) < 2:
            raise KeyboardInterrupt
        return {"steps": child.tick}

    with journal.drive(run) as session, pytest.raises(KeyboardInterrupt):
        session.call_run("part/1", drive, kind="Walk", spec={"until": "Steps(2)"})
    (child,) = run.called()
    assert (child.name, child.kind, child.spec) == ("flow-part-1", "Walk", {"until": "Steps(2)"})
    assert child.caller == (run.id, "part/1") and child.parent is None
    with (
        journal.drive(run) as session,
        pytest.raises(RunError, match=r"until \(was 'Steps\(2\)', is"),
    ):
        session.call_run("part/1", drive, kind="Walk", spec={"until": "Steps(3)"})
    for _ in range(2):
        with journal.drive(run) as session:
            answer = session.call_run("part/1", drive, kind="Walk", spec={"until": "Steps(2)"})
            assert answer == {"steps": 2}
    assert found == [(child.id, 0), (child.id, 1)]
    (call,) = run.calls()
    assert (call.path, call.child, call.answer) == ("part/1", child.id, {"steps": 2})
    assert [each.id for each in run.called()] == [child.id]


def test_a_path_calls_one_run(journal: Journal, run: Run) -> None:
    first = journal.create("a", kind="Walk", caller=(run, "part"))
    with pytest.raises(RunError, match="The path of a call must be new in its run, got 'part'"):
        journal.create("b", kind="Walk", caller=(run, "part"))
    journal.create("b", kind="Walk", caller=(first, "part"))
    assert [each.name for each in journal.runs()] == ["b", "a", "flow"]


# Killed for real --------------------------------------------------------------------------------

CALLER = """
import itertools, sys
from concurrent.futures import ThreadPoolExecutor
from ostinato.journal import Journal
journal = Journal(sys.argv[1])
made = open(sys.argv[2], "a", buffering=1)
def answer(n):
    made.write(f"{n}\\n")
    return {"n": n, "text": "x" * 50}
with journal.drive(journal.get("flow")) as session, ThreadPoolExecutor(16) as pool:
    def one(n):
        got = session.call(f"call/{n}", answer, {"n": n})
        assert got["n"] == n
        sys.stdout.write(f"{n}\\n")
        sys.stdout.flush()
    print("driven", flush=True)
    for start in itertools.count(step=64):
        list(pool.map(one, range(start, start + 64)))
"""


def kill_callers(journal: Journal, run: Run, made: Path, kills: int, seed: int) -> None:
    """Kill a process of 16 callers at random moments; hold the journal to its word after each."""
    dice, acknowledged, recorded, before = random.Random(seed), set[int](), set[int](), 0
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    for _ in range(kills):
        command = [sys.executable, "-c", CALLER, str(journal.path), str(made)]
        child = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
        assert child.stdout is not None and child.stdout.readline() == "driven\n"
        first = [child.stdout.readline() for _ in range(dice.randrange(20, 100))]
        time.sleep(dice.uniform(0, 0.02))
        child.kill()
        output = "".join(first) + child.communicate()[0]
        acknowledged |= {int(line) for line in output[: output.rfind("\n") + 1].split()}
        lines = made.read_text().split()
        # What was recorded before this process was not made by it again.
        assert not recorded & {int(line) for line in lines[before:]}
        before = len(lines)
        calls = list(run.calls())
        recorded = {int(each.path.removeprefix("call/")) for each in calls}
        assert acknowledged <= recorded and len(recorded) == len(calls)
        assert all(each.answer == {**each.arguments, "text": "x" * 50} for each in calls)
        assert [entry.seq for entry in run.log()] == list(range(1, run.now().seq + 1))
        assert run.status == "interrupted"
    assert len(acknowledged) > 64


def test_a_killed_caller_loses_no_answer_and_makes_no_recorded_call_again(
    journal: Journal, run: Run, tmp_path: Path
) -> None:
    kill_callers(journal, run, tmp_path / "made", kills=4, seed=0)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_forty_killed_callers_lose_no_answer(journal: Journal, run: Run, tmp_path: Path) -> None:
    kill_callers(journal, run, tmp_path / "made", kills=40, seed=1)
