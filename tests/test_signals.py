"""Ctrl-C and SIGTERM save a run at the step in which they come, also in a script of one's own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest
from toys import Walk

from ostinato.journal import Journal
from ostinato.loop import CheckpointSchedule, Loop, Step, Steps, ends_by_signal

SCRIPT = """
import os, signal, sys
from ostinato.loop import CheckpointSchedule, Loop, Step, Steps
from toys import Walk

def watch(step):
    if step.tick == 7:
        os.kill(os.getpid(), signal.{signal})

loop = Loop(Walk(), until=Steps(20), run="a", checkpoint=CheckpointSchedule(steps=5))
{body}
print("done")
"""
BODIES = {
    "run": "loop.run(watch)",
    "with": "with loop:\n    for step in loop:\n        watch(step)",
    "with run": "with loop:\n    loop.run(watch)",
    "within": (
        "outer = Loop(Walk(), until=Steps(1), run='outer')\n"
        "with outer:\n    with loop:\n        for step in loop:\n            watch(step)"
    ),
}


@pytest.fixture(autouse=True)
def default_handlers() -> Iterator[None]:
    """Handle signals as in the foreground: a shell's background jobs ignore SIGINT."""
    defaults: dict[signal.Signals, Any] = {
        signal.SIGINT: signal.default_int_handler,
        signal.SIGTERM: signal.SIG_DFL,
    }
    before = {number: signal.signal(number, handler) for number, handler in defaults.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def script(folder: Path, body: str, number: signal.Signals) -> subprocess.CompletedProcess[str]:
    text = SCRIPT.format(signal=number.name, body=body)
    paths = [str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))}
    return subprocess.run(
        [sys.executable, "-c", text],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, -2), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("body", BODIES)
def test_a_script_of_ones_own_is_saved_at_the_step_of_a_signal(
    tmp_path: Path, number: signal.Signals, code: int, body: str
) -> None:
    ended = script(tmp_path, BODIES[body], number)
    assert (ended.returncode, ended.stdout) == (code, "")
    assert ("KeyboardInterrupt" in ended.stderr) == (number == signal.SIGINT)
    with Journal(tmp_path / ".ostinato/journal.db") as journal:
        run = journal.get("a")
        assert (run.status, run.now().tick) == ("paused", 7)
        found = run.load()
        assert found is not None and found[0].tick == 7
        assert run.stopped is None or run.stopped.sentence == f"It was interrupted ({number.name})."
    process = Walk()
    plain = Loop(Walk(), until=Steps(20))
    plain.run()
    with Journal(tmp_path / ".ostinato/journal.db") as journal:
        Loop(process, until=Steps(20), run="a", journal=journal).run()
    assert process.place == plain.process.place  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("body", "status", "tick"),
    [
        ("with loop:\n    watch(Step(7, 7, {}))\n    loop.run()", "paused", 0),
        ("with loop:\n    for _ in loop: pass\n    watch(Step(7, 7, {}))", "stopped", 20),
    ],
    ids=["before", "after"],
)
def test_a_signal_between_the_steps_ends_the_script_too(
    tmp_path: Path, body: str, status: str, tick: int
) -> None:
    ended = script(tmp_path, body + "\n    print('more work')", signal.SIGTERM)
    assert (ended.returncode, ended.stderr) == (143, "")
    assert ended.stdout == ("" if status == "stopped" else "more work\n")
    with Journal(tmp_path / ".ostinato/journal.db") as journal:
        run = journal.get("a").now()
    assert (run.status, run.tick) == (status, tick)


def test_one_signal_is_handled_where_the_program_handles_the_other(tmp_path: Path) -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # as `asyncio.run` has its own
    try:
        with pytest.raises(SystemExit) as ended, run_loop(tmp_path) as loop:
            for step in loop:
                if step.tick == 3:
                    os.kill(os.getpid(), signal.SIGTERM)
        assert (ended.value.code, loop.tick) == (143, 3)
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_forked_child_is_ended_by_its_signal(tmp_path: Path) -> None:
    with run_loop(tmp_path) as loop:
        for step in loop:
            if step.tick == 3:
                ready, told = os.pipe()
                child = os.fork()
                if not child:
                    os.write(told, b"1")  # a signal before the fork's end would be lost
                    time.sleep(9)
                    os._exit(0)
                os.read(ready, 1)
                os.close(ready)
                os.close(told)
                os.kill(child, signal.SIGTERM)
                assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGTERM
    assert loop.tick == 20


def test_a_handler_that_is_set_within_stays(tmp_path: Path) -> None:
    def mine(number: int, frame: object) -> None: ...

    before = signal.getsignal(signal.SIGTERM)
    try:
        with run_loop(tmp_path):
            signal.signal(signal.SIGTERM, mine)
        assert signal.getsignal(signal.SIGTERM) is mine
    finally:
        signal.signal(signal.SIGTERM, before)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_loop_without_a_run_is_ended_by_the_signal_itself() -> None:
    taken = []
    with pytest.raises(KeyboardInterrupt), Loop(Walk(), until=Steps(20)) as loop:
        for step in loop:
            taken.append(step.tick)
            if step.tick == 3:
                os.kill(os.getpid(), signal.SIGINT)
    assert taken == [1, 2, 3]


def run_loop(path: Path, until: int = 20) -> Loop:
    return Loop(
        Walk(),
        until=Steps(until),
        run="a",
        journal=Journal(path / "journal.db"),
        checkpoint=CheckpointSchedule(steps=5),
    )


def test_a_handler_of_ones_own_stays(tmp_path: Path) -> None:
    came = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: came.append(number))
    try:
        with run_loop(tmp_path) as loop:
            for step in loop:
                if step.tick == 3:
                    os.kill(os.getpid(), signal.SIGTERM)
        assert came == [signal.SIGTERM] and loop.tick == 20
    finally:
        signal.signal(signal.SIGTERM, before)


def test_handlers_are_restored_and_an_error_goes_before_the_signal(tmp_path: Path) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with pytest.raises(ValueError, match="mine"), run_loop(tmp_path) as loop:
        for _ in loop:
            os.kill(os.getpid(), signal.SIGINT)
            raise ValueError("mine")
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_in_another_thread_nothing_is_installed(tmp_path: Path) -> None:
    ended: list[int] = []

    def drive() -> None:
        with run_loop(tmp_path) as loop:
            for _ in loop:
                assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        ended.append(loop.tick)

    thread = threading.Thread(target=drive)
    thread.start()
    thread.join()
    assert ended == [20]


def test_a_signal_pauses_the_loops_within_too(tmp_path: Path) -> None:
    class Outer:
        reason = ""

        def pause(self, reason: str = "") -> None:
            self.reason = reason

    outer = Outer()
    with ends_by_signal(outer) as state, run_loop(tmp_path) as loop:
        for step in loop:
            if step.tick == 4:
                os.kill(os.getpid(), signal.SIGTERM)
    assert (loop.tick, state.number) == (4, signal.SIGTERM)
    assert outer.reason == "It was interrupted (SIGTERM)."


class Pairs:
    """Each step runs a loop of three steps, which is a run of its own, and counts them."""

    known_edits: ClassVar[dict[str, str]] = {}

    def __init__(self, folder: Path, interrupted: int = 0) -> None:
        self.count, self.folder, self.interrupted = 0, folder, interrupted

    def step(self) -> dict[str, object]:
        with Journal(self.folder / "journal.db") as journal:
            name = f"inner-{self.count}"
            run = journal.find(name) or journal.create(name, kind="Walk")
            inner = Loop(Walk(), until=Steps(3), run=run)
            inner.run(self._watch)
        self.count += 1
        return {"inner": inner.tick}

    def _watch(self, step: Step) -> None:
        if self.interrupted and self.count == 1 and step.tick == 2:
            signal.raise_signal(self.interrupted)

    def state_dict(self) -> dict[str, object]:
        return {"count": self.count}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.count = state["count"]

    def change(self, edits: Mapping[str, object]) -> None: ...


@pytest.mark.parametrize("handled", [False, True])
def test_a_step_whose_inner_loop_was_paused_is_taken_again(tmp_path: Path, handled: bool) -> None:
    with Journal(tmp_path / "outer.db") as journal:
        run = journal.create("outer", kind="Pairs")
        loop = Loop(Pairs(tmp_path, signal.SIGTERM), until=Steps(3), run=run)
        if handled:
            with ends_by_signal(loop), loop:
                for _ in loop:
                    pass
        else:
            with pytest.raises(SystemExit) as ended:
                loop.run()
            assert ended.value.code == 143
        assert run.status == "paused" and [step.report["inner"] for step in run.steps()] == [3]
        assert loop.stopped is not None
        assert loop.stopped.sentence == "It was interrupted (SIGTERM)."
        Loop(Pairs(tmp_path), until=Steps(3), run=run).run()
        assert [step.report["inner"] for step in run.steps()] == [3, 3, 3]


def test_a_second_signal_ends_a_command_at_once_with_its_code(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys\n"
        "from ostinato.cli import main\n"
        "from ostinato.loop import ends_by_signal\n"
        "import ostinato.cli.runs.show as shown\n"
        "class Fake:\n"
        "    def pause(self, reason=''): pass\n"
        "def opened(path):\n"
        "    with ends_by_signal(Fake()):\n"
        "        os.kill(os.getpid(), signal.SIGINT)\n"
        "        os.kill(os.getpid(), signal.SIGINT)\n"
        "shown.opened = opened\n"
        "sys.argv[1:] = ['runs', 'show', 'a']\n"
        "main.main()\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert ended.returncode == 130
    assert ended.stderr == "Interrupted. What was acknowledged is saved.\n"
