"""Reports that come from outside: journaled before anything further is asked, never asked twice."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from toys import Speller

from ostinato.journal import JSON, Journal, StopKind, Stopped
from ostinato.loop import (
    Action,
    CheckpointSchedule,
    Condition,
    Exhausted,
    ExternalSource,
    GiveUp,
    GoBack,
    History,
    Lanes,
    Loop,
    Policy,
    Report,
    StartOver,
    Step,
    Steps,
    Verdict,
)

ITEMS = [(f"item{n}", n) for n in range(9)]


class Oracle(ExternalSource, Speller):
    """Never says the same twice: each letter depends on how much was asked before it.

    What it was asked is in a file that survives it.
    """

    def __init__(self, asked: Path, *, slow: float = 0.0) -> None:
        super().__init__(slots=3)
        self.asked = asked
        self.slow = slow

    def step(self) -> Mapping[str, Report]:
        time.sleep(self.slow)
        reports = {}
        for key, text in self._texts.items():
            if not text.endswith("."):
                with self.asked.open("a") as file:
                    file.write("x")
                count = self.asked.stat().st_size
                letter = "abcdefgh."[count * 7919 % 1009 % 9]
                self._texts[key] = text + letter
                end = {"ended": "It wrote a full stop."} if letter == "." else {}
                reports[key] = {"letter": letter, "tokens": 1, "count": count, **end}
        return reports


def judge(output: object, item: object) -> list[Verdict]:
    return [Verdict("no b", "b" not in str(output), message="b is there.")]


def mend(stopped: Stopped, history: History) -> Action:
    place = str(history.output).find("b")
    if len(history.attempts) > 3:
        return GiveUp("Enough.")
    return GoBack(place) if place > 0 else StartOver()


def ask(asked: Path, *, slow: float = 0.0, **where: Any) -> Loop:
    lanes = Lanes(
        Oracle(asked, slow=slow), ITEMS, Policy(each=Steps(20), judge=judge, on_stop=mend)
    )
    return Loop(lanes, until=Steps(100_000), checkpoint=CheckpointSchedule(steps=16), **where)


def counts(journal: Path) -> list[int]:
    """Return the numbers of all questions whose answers are recorded."""
    with Journal(journal) as opened:
        steps = list(opened.get("run").steps())
    return [lane["report"]["count"] for step in steps for lane in step.report["lanes"].values()]


def test_a_run_that_goes_on_takes_what_it_has_received_from_its_journal(tmp_path: Path) -> None:
    asked, path = tmp_path / "asked", tmp_path / "journal.db"
    with Journal(path) as journal:
        for more in (5, 1, 23, 12):
            loop = ask(asked, run="run", journal=journal, keep="results")
            steps = iter(loop)
            for _ in range(more):
                next(steps)
            assert loop._session is not None
            loop._session.close()  # as if it were killed: no checkpoint, no end
        loop = ask(asked, run="run", journal=journal)
        loop.run()
        rows = dict(journal.get("run").results())
        assert loop._session is not None
        assert loop._session.differences == 0
    assert counts(path) == list(range(1, asked.stat().st_size + 1))
    assert set(rows) == {key for key, _ in ITEMS}
    assert any(row["backtracks"] for row in rows.values())


def test_what_was_spent_in_all_is_known_after_a_resume(tmp_path: Path) -> None:
    asked = tmp_path / "asked"
    with Journal(tmp_path / "journal.db") as journal:
        loop = ask(asked, run="run", journal=journal)
        steps = iter(loop)
        for _ in range(20):
            next(steps)
        assert loop._session is not None
        loop._session.close()
        again = ask(asked, run="run", journal=journal)
        lanes = again.process
        assert isinstance(lanes, Lanes)
        again.run()
    assert lanes.spent["tokens"] == asked.stat().st_size


class OutOfTime(Condition):
    """Cuts item 1 after three steps, as a clock would on a slow day."""

    def observe(self, state: JSON, step: Step) -> tuple[JSON, Stopped | None]:
        late = step.item == 1 and step.position == 3
        return late, Stopped(StopKind.BUDGET, "Its time is over.", "time") if late else None

    def by_clock(self, state: JSON) -> bool:
        return bool(state)

    def __str__(self) -> str:
        return "OutOfTime()"


def test_an_item_that_its_clock_has_cut_costs_the_others_nothing(tmp_path: Path) -> None:
    def begun(**where: Any) -> Loop:
        lanes = Lanes(Oracle(asked), ITEMS, Policy(each=Steps(20) | OutOfTime()))
        return Loop(lanes, until=Steps(100_000), **where)

    asked = tmp_path / "asked"
    with Journal(tmp_path / "journal.db") as journal:
        loop = begun(run="run", journal=journal)
        steps = iter(loop)
        while journal.get("run").result("item1") is None:
            next(steps)
        for _ in range(4):
            next(steps)
        assert loop._session is not None
        loop._session.close()
        before = asked.stat().st_size
        again = begun(run="run", journal=journal)
        lanes = again.process
        assert isinstance(lanes, Lanes)
        steps = iter(again)
        while asked.stat().st_size == before:
            next(steps)
        assert again.tick > loop.tick  # all that was recorded came first
        again.run()
        assert lanes.spent["tokens"] == asked.stat().st_size
        assert len(dict(journal.get("run").results())) == len(ITEMS)


def test_a_judge_that_decides_otherwise_than_then_leaves_the_lane_s_records(tmp_path: Path) -> None:
    asked, path = tmp_path / "asked", tmp_path / "journal.db"
    with Journal(path) as journal:
        loop = ask(asked, run="run", journal=journal)
        steps = iter(loop)
        for _ in range(15):
            next(steps)
        assert loop._session is not None
        loop._session.close()
        lanes = Lanes(Oracle(asked), ITEMS, Policy(each=Steps(2)))  # ends sooner than recorded
        other = Loop(lanes, until=Steps(100_000), run="run", journal=journal)
        assert other.run().kind is StopKind.ENDED
        assert journal.get("run").count_results() >= len(ITEMS)


class Sulky(Speller):
    """Tells by its reports, or by not stepping, that it cannot go on."""

    says: Mapping[str, object]

    def step(self) -> Mapping[str, Report]:
        if "spent" in self.says:
            raise Exhausted("Nothing is left to spend.", StopKind.BUDGET)
        return {key: {"letter": "a", **self.says} for key in self._texts}


def sulk(**says: object) -> tuple[Stopped, dict[str, Any]]:
    process = Sulky()
    process.says = says
    rows: dict[str, Any] = {}
    lanes = Lanes(
        process, ITEMS[:1], Policy(each=Steps(5), on_stop=lambda stopped, history: GiveUp("So."))
    )
    loop = Loop(lanes, until=Steps(50))
    for step in loop:
        rows |= {one.key: one.to_json() for one in step.results}
    assert loop.stopped is not None
    return loop.stopped, rows


@pytest.mark.parametrize(("name", "kind"), [("failed", StopKind.FAILED), ("error", StopKind.ERROR)])
def test_a_lane_tells_that_it_cannot_go_on(name: str, kind: StopKind) -> None:
    _, rows = sulk(**{name: "The line is dead."})
    stopped = rows["item0"]["stopped"]
    assert stopped["kind"] == kind.value
    assert stopped["sentence"].endswith("The line is dead.")
    assert not rows["item0"]["accepted"]


def test_a_process_whose_budget_is_spent_ends_the_loop_by_it() -> None:
    stopped, rows = sulk(spent=True)
    assert (stopped.kind, stopped.sentence) == (StopKind.BUDGET, "Nothing is left to spend.")
    assert rows == {}


CHILD = """
import sys
sys.path[:0] = [{tests!r}]
from pathlib import Path
from test_external_source import ask
from ostinato.journal import Journal
ask(Path("asked"), slow=0.01, run="run", journal=Journal("journal.db")).run()
"""


@pytest.mark.slow
def test_a_killed_run_loses_at_most_the_tick_it_was_killed_in(tmp_path: Path) -> None:
    code = CHILD.format(tests=str(Path(__file__).parent))
    kills = 0
    for pause in (0.3, 0.15, 0.5, 0.25, 30):
        child = subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path)
        before = (tmp_path / "asked").stat().st_size if (tmp_path / "asked").exists() else 0
        while child.poll() is None and (
            not (tmp_path / "asked").exists() or (tmp_path / "asked").stat().st_size == before
        ):
            time.sleep(0.01)
        try:
            assert child.wait(pause) == 0
            break
        except subprocess.TimeoutExpired:
            os.kill(child.pid, signal.SIGKILL)
            child.wait()
            kills += 1
    assert kills
    told = counts(tmp_path / "journal.db")
    assert told == sorted(set(told))
    lost = (tmp_path / "asked").stat().st_size - len(told)
    assert lost <= 3 * kills  # three lanes
