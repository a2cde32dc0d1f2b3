"""Flows killed with SIGKILL at random moments end as undisturbed ones, and make no call twice."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from faulty_server import Faults, serving

from ostinato.journal import Journal, Run
from ostinato.testing import Forks

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")


@pytest.fixture(scope="module")
def forks() -> Iterator[Forks]:
    with Forks("killable_flows") as opened:
        yield opened


class Killed:
    """Runs the flows against a server, in processes that are killed."""

    def __init__(self, forks: Forks, folder: Path, server: str, faults: Faults) -> None:
        self.journal, self.lines = folder / "journal.db", folder / "lines.txt"
        self._forks, self._faults = forks, faults
        self._output = folder / "output.txt"
        self._arguments = [f"server={server}#m", f"written={self.lines}"]

    def drive(self, seconds: float) -> bool:
        """Run on for so long; return whether the run has ended."""
        lines, bodies = len(self.written()), len(self._faults.bodies)
        recorded, asked = self.recorded()
        child = self._forks.spawn(
            ["killable_flows:make", str(self.journal), *self._arguments], self._output
        )
        code = child.wait(seconds)
        if code is None:
            child.kill()
            child.wait(10)
        assert code in (None, 0), self._output.read_text()[-3000:]
        again = set(self.written()[lines:]) & recorded
        assert not again, f"These steps were made again: {sorted(again)[:5]}"
        prompts = {self.prompt(body) for body in self._faults.bodies[bodies:]}
        assert not prompts & asked, f"These were asked again: {sorted(prompts & asked)[:5]}"
        return code == 0

    def prompt(self, body: dict) -> str:  # type: ignore[type-arg]
        return str(body["messages"][0]["content"])

    def written(self) -> list[str]:
        return self.lines.read_text().split() if self.lines.exists() else []

    def recorded(self) -> tuple[set[str], set[str]]:
        """Return the names of the steps and the prompts of the texts that have an answer."""
        if not self.journal.exists():
            return set(), set()
        with Journal(self.journal) as journal:
            run = journal.find("run")
            calls = [] if run is None else list(run.calls())
        steps = {str(call.arguments["name"]) for call in calls if "name" in call.arguments}
        return steps, {str(call.arguments.get("prompt")) for call in calls}

    def result(self) -> tuple[object, object]:
        """Return the results, and all calls with their answers, clocks excepted."""
        with Journal(self.journal) as journal:
            run = journal.get("run")
            assert run.stopped is not None, run.status
            return sorted((key, row["output"]) for key, row in run.results()), calls_of(run)


def calls_of(run: Run) -> dict[str, object]:
    clocks = ("now", "sleep")
    return {
        call.path: (call.arguments, _without_clock(call.answer), call.error)
        for call in run.calls()
        if call.path.rpartition(":")[2] not in clocks
    }


def _without_clock(answer: object) -> object:
    if isinstance(answer, dict) and isinstance(answer.get("spent"), dict):
        spent = {name: each for name, each in answer["spent"].items() if name != "seconds"}
        return {**answer, "spent": spent}
    return answer


def check_kills(forks: Forks, tmp_path: Path, kills: int) -> None:
    rng = random.Random(5)
    faults = Faults(drip=0.004)
    with serving(faults) as server:
        (tmp_path / "whole").mkdir()
        whole = Killed(forks, tmp_path / "whole", server, faults)
        assert whole.drive(100)
        expected = whole.result()
        asked = len(faults.bodies)
        done, number = 0, 0
        while done < kills:
            number += 1
            folder = tmp_path / f"killed{number}"
            folder.mkdir()
            killed = Killed(forks, folder, server, faults)
            while done < kills and not killed.drive(rng.uniform(0.2, 1.2)):
                done += 1
            killed.drive(100)
            assert killed.result() == expected
        assert asked > 100


def test_flows_killed_a_few_times(forks: Forks, tmp_path: Path) -> None:
    check_kills(forks, tmp_path, 4)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_flows_killed_a_hundred_times(forks: Forks, tmp_path: Path) -> None:
    check_kills(forks, tmp_path, 100)
