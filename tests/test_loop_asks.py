"""A process that asks a person, and is not answered, leaves its run waiting; it can be resumed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from toys import Walk

from ostinato.errors import RunError, Unanswered
from ostinato.journal import Journal, Run, StopKind
from ostinato.loop import CheckpointSchedule, Loop, Report, Steps


class Asking(Walk):
    """A walk that asks how to go on in its sixth step."""

    loop: Loop
    seconds: float | None = 0

    def step(self) -> Report:
        report = super().step()
        if self.steps == 6:
            session = self.loop.session
            assert session is not None
            answer = session.ask("how/6", "How on?", seconds=self.seconds)
            return {**report, "answer": answer}
        return report


def asking(journal: Journal, seconds: float | None = 0) -> Loop:
    process = Asking()
    process.seconds = seconds
    schedule = CheckpointSchedule(steps=4)
    process.loop = Loop(process, until=Steps(9), run="a", journal=journal, checkpoint=schedule)
    return process.loop


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path / "journal.db")


def expect_to_go_on(journal: Journal, run: Run) -> None:
    """Answer, resume, and compare with a run that was answered at once."""
    assert (run.status, run.tick, run.driven) == ("waiting", 5, False)
    assert [each.path for each in run.questions()] == ["how/6"]
    journal.answer(run, "on", by="ada")
    assert run.status == "paused"
    loop = asking(journal)
    assert loop.tick == 4  # the last checkpoint: no state is saved in the middle of a step
    assert loop.run().kind is StopKind.BUDGET
    assert (run.status, loop.session and loop.session.differences) == ("stopped", 0)
    plain = Loop(Walk(), until=Steps(9))
    steps = [{**step.report, **({"answer": "on"} if step.tick == 6 else {})} for step in plain]
    assert [step.report for step in run.steps()] == steps
    assert run.questions() == []


def test_a_step_that_is_not_answered_in_time_leaves_its_run_waiting(journal: Journal) -> None:
    loop = asking(journal)
    stopped = loop.run()
    assert (stopped.kind, stopped.condition) == (StopKind.PERSON, "ask")
    assert stopped.sentence.startswith("The question 'how/6' of the run 'a' has no answer yet.")
    assert "runs answer a" in stopped.sentence
    assert list(loop) == []
    again = asking(journal)
    assert again.run().condition == "ask"  # still without an answer
    expect_to_go_on(journal, journal.get("a"))


@pytest.mark.parametrize(("action", "status"), [("pause", "waiting"), ("stop", "stopped")])
def test_a_waiting_step_is_paused_and_stopped_from_outside(
    journal: Journal, action: str, status: str
) -> None:
    def request() -> None:
        with Journal(journal.path) as other:
            while (run := other.find("a")) is None or run.status != "waiting":
                time.sleep(0.01)
            other.request(run, action)

    person = threading.Thread(target=request)
    person.start()
    stopped = asking(journal, None).run()
    person.join()
    assert (stopped.kind, stopped.condition) == (StopKind.PERSON, action)
    run = journal.get("a")
    assert (run.status, run.tick, run.driven) == (status, 5, False)
    (done,) = run.requests()
    assert done.answer == {"tick": 5}
    if action == "pause":
        expect_to_go_on(journal, run)
    else:
        assert run.questions() == [] and journal.summaries()[0].waits_for is None
        with pytest.raises(RunError, match="'a' must wait for an answer, got stopped"):
            journal.answer(run, "late")


SCRIPT = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
from ostinato.journal import Journal
from test_loop_asks import asking
asking(Journal(sys.argv[1]), None).run()
"""


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, -2), (signal.SIGKILL, -9)]
)
def test_a_signal_to_a_step_that_waits_leaves_its_run_waiting(
    journal: Journal, number: signal.Signals, code: int
) -> None:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-c", SCRIPT, str(journal.path)]
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as child:
        while (run := journal.find("a")) is None or run.status != "waiting":
            assert child.poll() is None
            time.sleep(0.01)
        child.send_signal(number)
        errors = child.communicate(timeout=30)[1]
    assert child.returncode == code
    assert "Unanswered" not in errors
    expect_to_go_on(journal, run)


def test_a_question_in_the_body_of_a_loop_leaves_its_run_waiting(journal: Journal) -> None:
    loop = Loop(Walk(), until=Steps(9), run="a", journal=journal)
    with pytest.raises(Unanswered), loop:
        for step in loop:
            if step.tick == 3:
                assert loop.session is not None
                loop.session.ask("q", "On?", seconds=0)
    run = journal.get("a")
    assert (run.status, run.tick) == ("waiting", 3)
    journal.answer(run, "yes")
    assert Loop(Walk(), until=Steps(9), run="a", journal=journal).run().kind is StopKind.BUDGET


def test_a_called_loop_whose_caller_asks_is_paused_and_passes_it_on(journal: Journal) -> None:
    flow = journal.create("flow", kind="flow")

    def part(child: Run) -> object:
        def step() -> Report:
            return {"answer": session.ask("how", "How?", seconds=0)}

        return Loop(step, until=Steps(1), run=child).run().sentence

    for _ in range(2):
        with journal.drive(flow) as session, pytest.raises(Unanswered, match="of the run 'flow'"):
            session.call_run("part", part, kind="part")
        (child,) = flow.called()
        assert (flow.status, child.status) == ("waiting", "paused")
    journal.answer(flow, "so")
    with journal.drive(flow) as session:
        assert session.call_run("part", part, kind="part") == "It has taken 1 step, the limit."
    assert child.status == "stopped"


@pytest.mark.parametrize("ends", ["asks", "pauses"])
def test_a_called_run_that_can_be_resumed_is_no_answer_yet(journal: Journal, ends: str) -> None:
    flow = journal.create("flow", kind="flow")
    answered = False

    def part(child: Run) -> object:
        def step() -> Report:
            assert loop.session is not None
            if ends == "asks":
                return {"answer": loop.session.ask("how", "How?", seconds=0)}
            if not answered:
                loop.pause()
            return {}

        loop = Loop(step, until=Steps(2), run=child)
        return loop.run().sentence

    with (
        journal.drive(flow) as session,
        pytest.raises(RunError, match="'flow-part'") as error,
    ):
        session.call_run("part", part, kind="part")
    assert isinstance(error.value, Unanswered) == (ends == "asks")
    (child,) = flow.called()
    assert child.status == ("waiting" if ends == "asks" else "paused")
    assert list(flow.calls()) == []
    if ends == "asks":
        journal.answer(child, "so")
    answered = True
    with journal.drive(flow) as session:
        session.call_run("part", part, kind="part")
    assert (child.status, len(list(flow.calls()))) == ("stopped", 1)
