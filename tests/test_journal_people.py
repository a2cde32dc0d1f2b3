"""What people tell a run: answers to its questions, and notes on its results."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from ostinato.errors import InputError, RunError, Unanswered
from ostinato.journal import Journal, Run


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path / "journal.db")


@pytest.fixture
def run(journal: Journal) -> Run:
    return journal.create("flow", kind="Flow")


def wait_for(run: Run, status: str) -> None:
    deadline = time.monotonic() + 30
    while run.status != status:
        assert time.monotonic() < deadline, run.status
        time.sleep(0.01)


# Waiting ----------------------------------------------------------------------------------------


def test_a_run_waits_until_a_person_answers(journal: Journal, run: Run) -> None:
    def answer() -> None:
        wait_for(run, "waiting")
        (question,) = run.questions()
        assert question[:3] == ("ship", "Ship it?", ("yes", "no"))
        assert [each.waits_for for each in journal.summaries()] == ["Ship it?"]
        with Journal(journal.path) as other:
            with pytest.raises(InputError, match="to 'ship' must be one of yes, no, got 'perhaps'"):
                other.answer(other.get("flow"), "perhaps")
            other.answer(other.get("flow"), "yes", by="ada")

    person = threading.Thread(target=answer)
    person.start()
    with journal.drive(run) as session:
        assert session.ask("ship", "Ship it?", options=["yes", "no"]) == "yes"
        person.join()
        assert run.status == "running" and run.questions() == []
        session.step(1, 1, {})
    with journal.drive(run) as session:
        assert session.ask("ship", "Ship it?", options=["yes", "no"]) == "yes"
        with pytest.raises(RunError, match=r"new values for question \(was 'Ship it\?', is 'Now"):
            session.ask("ship", "Now?", options=["yes", "no"])
    (call,) = run.calls()
    assert (call.path, call.answer, call.author) == ("ship", "yes", "ada")
    assert [entry.entry for entry in run.log()] == ["event", "event", "call", "step"]
    assert [event.name for event in run.events()] == ["start", "ask"]


def test_a_run_that_ends_while_it_waits_goes_on_with_the_answer(journal: Journal, run: Run) -> None:
    with journal.drive(run) as session:
        with pytest.raises(
            Unanswered, match="The question 'q' of the run 'flow' has no answer yet"
        ):
            session.ask("q", "Which?", seconds=0)
        session.finish("waiting", None, 0, 0)
    assert (run.status, [each.path for each in run.questions()]) == ("waiting", ["q"])
    with journal.drive(run) as session, pytest.raises(Unanswered):
        session.ask("q", "Which one?", seconds=0)  # nobody has answered: it may be put better
    assert [each.question for each in run.questions()] == ["Which one?"]
    journal.answer(run, {"n": 3})
    assert (run.status, run.questions()) == ("paused", [])
    with journal.drive(run) as session:
        assert session.ask("q", "Which one?") == {"n": 3}
    with pytest.raises(RunError, match="The run 'flow' must wait for an answer, got paused"):
        journal.answer(run, "too late")


def test_one_of_several_questions_is_answered_by_its_path(journal: Journal, run: Run) -> None:
    with journal.drive(run) as session:
        for path in ("a", "b"):
            with pytest.raises(Unanswered):
                session.ask(path, f"{path}?", seconds=0)
        session.finish("waiting", None, 0, 0)
    for wrong in (None, "c"):
        with pytest.raises(RunError, match=f"got {wrong!r}. Give --path.* Open are: a, b"):
            journal.answer(run, 1, path=wrong)
    journal.answer(run, 1, path="b")
    assert run.now().status == "waiting"
    journal.answer(run, 2)
    assert run.now().status == "paused"
    with journal.drive(run) as session:
        assert [session.ask(path, f"{path}?") for path in ("a", "b")] == [2, 1]


def test_an_answer_that_comes_as_a_session_ends_leaves_no_run_waiting(
    journal: Journal, run: Run
) -> None:
    with journal.drive(run) as session:
        with pytest.raises(Unanswered):
            session.ask("q", "Which?", seconds=0)
        journal.answer(run, 1)
        assert run.now().status == "running"
        session.finish("waiting", None, 0, 0)
    assert run.now().status == "paused"


@pytest.mark.parametrize("action", ["pause", "stop"])
def test_a_run_that_waits_can_be_paused_and_stopped(
    journal: Journal, run: Run, action: str
) -> None:
    def request() -> None:
        wait_for(run, "waiting")
        with Journal(journal.path) as other:
            other.request(other.get("flow"), action)

    person = threading.Thread(target=request)
    person.start()
    with journal.drive(run) as session:
        with pytest.raises(Unanswered):
            session.ask("q", "Which?")
        assert [each.action for each in session.inbox] == [action]
        session.done(session.inbox[0], answer={"tick": 0})
    person.join()
    assert [each.path for each in run.questions()] == ["q"]
    (request_row,) = run.requests()
    assert (request_row.action, request_row.answer, request_row.error) == (
        action,
        {"tick": 0},
        None,
    )


WAITER = """
import sys
from ostinato.journal import Journal
journal = Journal(sys.argv[1])
with journal.drive(journal.get("flow")) as session:
    session.call("before", lambda: print("called", flush=True))
    print("answer", session.ask("q", "Which?"), flush=True)
"""


def test_a_killed_run_still_waits(journal: Journal, run: Run) -> None:
    command = [sys.executable, "-c", WAITER, str(journal.path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        wait_for(run, "waiting")
        child.send_signal(signal.SIGKILL)
        assert child.communicate()[0] == "called\n"
    assert (run.status, run.driven) == ("waiting", False)
    assert [each.question for each in run.questions()] == ["Which?"]
    journal.answer(run, "this")
    assert run.status == "paused"
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "answer this\n"


def test_a_path_is_that_of_a_question_or_of_a_call(journal: Journal, run: Run) -> None:
    with journal.drive(run) as session:
        with pytest.raises(Unanswered):
            session.ask("q", "Which?", seconds=0)
        message = (
            r"The path 'q' of the run 'flow' must be that of one question, which has no answer "
            r"yet, got a {}\. Give the {} another path\."
        )
        with pytest.raises(RunError, match=message.format("call", "call")):
            session.call("q", lambda: 1)
        with pytest.raises(RunError, match=message.format("called run", "called run")):
            session.call_run("q", lambda child: 1, kind="Walk")
        with pytest.raises(KeyboardInterrupt):
            session.call_run("r", _interrupted, kind="Walk")
        with pytest.raises(RunError, match=r"'r' .* that of one called run.* got a question"):
            session.ask("r", "Which?", seconds=0)
        session.call("c", lambda: 1)
        with pytest.raises(RunError, match=r"The call 'c' .* new values for question"):
            session.ask("c", "Which?", seconds=0)
    assert [each.path for each in run.questions()] == ["q"]
    journal.answer(run, 1)
    with journal.drive(run) as session:
        assert session.ask("q", "Which?") == 1
        with pytest.raises(RunError, match=r"The call 'q' .* new values for question"):
            session.call("q", lambda: 1)


def _interrupted(child: Run) -> object:
    raise KeyboardInterrupt


def test_a_question_whose_path_a_call_has_taken_is_told(journal: Journal, run: Run) -> None:
    with journal.drive(run) as session, pytest.raises(Unanswered):
        session.ask("q", "Which?", seconds=0)
    with journal._database.write() as connection:  # as an older version could leave it
        connection.execute(
            "INSERT INTO calls (run, path, seq, tick, arguments, answer, created) "
            "VALUES (?, 'q', 9, 0, '{}', '1', 0)",
            (run.id,),
        )
    with pytest.raises(RunError, match="'q' must be one without an answer, got one whose path has"):
        journal.answer(run, 1)


# Requests to drivers are answered ---------------------------------------------------------------


def test_a_request_carries_the_answer_of_the_driver(journal: Journal, run: Run) -> None:
    with journal.drive(run) as session:
        for edits in ({"rate": 1}, {"rat": 2}):
            journal.request(run, "change", edits)
        deadline = time.monotonic() + 10
        while len(session.inbox) < 2 and time.monotonic() < deadline:
            time.sleep(0.01)
        good, bad = session.inbox
        session.event("change", 4, {"rate": 1}, request=good)
        session.done(bad, error="Unknown edit 'rat'.")
        session.flush()
        journal.request(run, "pause")
    rows = [(each.action, each.answer, each.error) for each in run.requests()]
    assert rows[:2] == [("change", {"tick": 4}, None), ("change", None, "Unknown edit 'rat'.")]
    assert rows[2] == ("pause", None, None)
    journal.drive(run).close()
    assert run.requests()[2].error == "The session it was meant for had ended."


# Notes ------------------------------------------------------------------------------------------


def test_notes_on_results_are_kept_beside_what_was_recorded(journal: Journal, run: Run) -> None:
    with journal.drive(run) as session:
        session.result("a", {"text": "An answr.", "score": 1})
        session.result("b", {"text": "Another."})
    seqs = [
        journal.note(run, "a", "edited", value={"text": "An answer."}, text="A typo.", by="ada"),
        journal.note(run, "b", "rejected"),
        journal.note(run, "a", "edited", value={"score": 2}, by="bob"),
        journal.note(run, "a", "accepted", by="ada"),
    ]
    assert seqs == [3, 4, 5, 6]
    first, *rest = run.notes("a")
    assert (first.seq, first.verdict, first.value) == (3, "edited", {"text": "An answer."})
    assert (first.text, first.author, first.created > 0) == ("A typo.", "ada", True)
    assert [(each.verdict, each.author) for each in rest] == [
        ("edited", "bob"),
        ("accepted", "ada"),
    ]
    assert len(run.notes()) == 4 and run.notes("b")[0].author
    assert dict(run.results()) == {
        "a": {"text": "An answr.", "score": 1},
        "b": {"text": "Another."},
    }
    assert dict(run.results(edited=True)) == {
        "a": {"text": "An answer.", "score": 2},
        "b": {"text": "Another."},
    }


@pytest.mark.parametrize(
    ("key", "verdict", "value", "message"),
    [
        ("apple", "accepted", None, "has no result 'apple' to be noted on. Did you mean 'apples'?"),
        ("apples", "acepted", None, "verdict must be .*'accepted'"),
        ("apples", "accepted", {"text": "x"}, "value must be left out, but for an edited result"),
        ("apples", "edited", None, "value must be the fields that were edited, got None"),
        ("apples", "edited", {"texd": "x"}, "one of the result 'apples', got 'texd'. Did you mean"),
    ],
)
def test_wrong_notes_are_refused(
    journal: Journal, run: Run, key: str, verdict: str, value: dict[str, str] | None, message: str
) -> None:
    with journal.drive(run) as session:
        session.result("apples", {"text": "An answer."})
    with pytest.raises((InputError, RunError), match=message):
        journal.note(run, key, verdict, value=value)  # type: ignore[arg-type]
    assert run.notes() == []
