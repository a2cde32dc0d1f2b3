"""Going back to a checkpoint from before a trouble that took many steps to see."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from toys import Walk

from ostinato.cli.main import cli
from ostinato.journal import Journal, StopKind, Stopped
from ostinato.loop import (
    Action,
    CheckpointSchedule,
    Condition,
    Edits,
    Exceeds,
    GoBack,
    History,
    Loop,
    Observed,
    Report,
    State,
    Step,
    Steps,
    go_back,
)
from ostinato.train import go_back as halve

SICK = 12  # the position from which on a rate of 1 goes wrong
PATIENCE = 9


class Sickly(Walk):
    """A walk that says it is sick while its rate is 1, from a position on."""

    def step(self) -> Report:
        report = super().step()
        return {**report, "sick": self.steps >= SICK and self.rate == 1.0}


@dataclass(frozen=True)
class Sick(Condition):
    """Fires after `PATIENCE` sick steps in a row."""

    def initial_state(self) -> list[int]:
        return [0, 0]  # sick steps in a row; the last position before them

    def observe(self, state: State, step: Step) -> Observed:
        state = [state[0] + 1, state[1]] if step.report["sick"] else [0, step.position]
        if state[0] < PATIENCE:
            return state, None
        return state, Stopped(StopKind.DIVERGED, "Sick.", str(self), {}, self.last_good(state))

    def last_good(self, state: State) -> int | None:
        return state[1] if state[0] else None


def loop(run: Any = None, on_stop: Any = None, every: int = 2, keep: int = 2) -> Loop:
    journal = None if run is None else Journal(run)
    return Loop(
        Sickly(),
        until=Steps(40) | Sick(),
        on_stop=on_stop or go_back(times=1, rate=2.0),
        checkpoint=CheckpointSchedule(steps=every, keep=keep),
        run=None if journal is None else "a",
        journal=journal,
    )


def positions(steps: Any) -> list[tuple[int, int]]:
    return [(step.tick, step.position) for step in steps]


@pytest.mark.parametrize("recorded", [False, True])
def test_it_goes_back_to_the_last_checkpoint_before_the_trouble(
    tmp_path: Path, recorded: bool
) -> None:
    """Two checkpoints are kept, four were made in the trouble: the good one outlives them."""
    with loop(tmp_path / "journal.db" if recorded else None) as one:
        seen = positions(one)
    stopped_at = SICK + PATIENCE - 1
    assert seen[stopped_at - 1 : stopped_at + 1] == [(20, 20), (21, 11)]
    assert one.stopped is not None and one.stopped.kind is StopKind.BUDGET
    attempt = one.attempts[0]
    assert attempt.stopped.last_good == SICK - 1
    assert attempt.action == GoBack(SICK - 1, {"rate": 2.0}, "Sick.")


@pytest.mark.parametrize("cut", [10, 13, 16, 19, 20, 21, 25])
def test_a_run_resumed_in_its_trouble_goes_back_to_the_same_checkpoint(
    tmp_path: Path, cut: int
) -> None:
    with loop() as one:
        whole = positions(one)
    with loop(tmp_path / "journal.db") as first:
        seen = positions(step for _, step in zip(range(cut), first, strict=False))
    with loop(tmp_path / "journal.db") as second:
        seen += positions(second)
    assert seen == whole
    with Journal(tmp_path / "journal.db") as journal:
        answers = [each for each in journal.get("a").events() if each.name == "answer"]
        assert [each.data["stopped"]["last_good"] for each in answers] == [SICK - 1]


def test_without_a_checkpoint_before_the_trouble_it_starts_over() -> None:
    with loop(every=15) as one:
        assert (21, 1) in positions(one)


class Halved(Sickly):
    """Sick while its rate is above 0.2; `rate_scale` multiplies it."""

    def step(self) -> Report:
        report = super().step()
        return {**report, "sick": self.steps >= SICK and self.rate > 0.2}

    def change(self, edits: Edits) -> None:
        scale = edits["rate_scale"]
        assert isinstance(scale, float)
        self.rate *= scale


@pytest.mark.parametrize("every", [1, 2, 3, 5, 7, 10, 25])
def test_whatever_checkpoint_it_returns_to_each_edit_is_in_force_once(every: int) -> None:
    """Some checkpoints know of the attempts before, some do not, and some are in the trouble."""
    one = Loop(
        process := Halved(),
        until=Steps(90) | Sick(),
        on_stop=halve(rate_scale=0.5, times=3),
        checkpoint=CheckpointSchedule(steps=every, keep=2),
    )
    assert one.run().kind is StopKind.BUDGET
    assert len(one.attempts) == 3 and process.rate == 0.125


def test_a_stop_that_came_with_one_step_goes_back_to_the_last_checkpoint() -> None:
    def once(stopped: Stopped, history: History) -> Action:
        return go_back(kinds=("failed",), times=1)(stopped, history)

    one = Loop(
        Walk(),
        until=Exceeds("epoch", above=0.75),
        on_stop=once,
        checkpoint=CheckpointSchedule(steps=3),
    )
    assert (9, 7) in positions(one)


def test_the_earliest_of_several_troubles_counts() -> None:
    one, other = Sick(), Sick()
    state = [[2, 7], [4, 5]]
    assert (one | other).last_good(state) == (one & other).last_good(state) == 5
    assert (one | other).last_good([[0, 7], [0, 7]]) is None
    _, stopped = (one & other).observe([[PATIENCE, 7], [PATIENCE, 5]], Step(1, 1, {"sick": True}))
    assert stopped is not None and stopped.last_good == 5
    assert Stopped.from_json(stopped.to_json()) == stopped


def test_runs_show_tells_each_time_with_its_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with loop(tmp_path / ".ostinato" / "journal.db") as one:
        one.run()
    shown = CliRunner().invoke(cli, ["runs", "show", "a"]).output
    assert 'went back   tick 20, from position 20 with {"rate":2.0}: Sick.' in shown
    attempts = json.loads(CliRunner().invoke(cli, ["runs", "show", "a", "--json"]).output)
    assert attempts["attempts"][0]["answer"]["to"] == SICK - 1
