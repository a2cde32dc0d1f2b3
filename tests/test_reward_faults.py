"""What an environment does wrong is told by name and place, and nothing is lost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("gymnasium")
from games import Corridor, Target, small
from gymnasium import spaces

from ostinato.errors import EnvironmentFault, InputError
from ostinato.journal import Journal
from ostinato.loop import CheckpointSchedule, Loop, Steps
from ostinato.reward.games import Environments, QLearning, make_environment


class Faulty(Target):
    """Goes wrong in the third step of an episode, as `how` says, while `broken`."""

    broken = True

    def __init__(self, how: str = "raises") -> None:
        super().__init__()
        self.how = how

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        seen, reward, ended, cut, info = super().step(action)
        if self.taken == 3 and Faulty.broken:
            if self.how == "raises":
                raise ValueError("the motor is stuck")
            seen = {"shape": np.zeros(2, np.float32), "nan": np.array([np.nan], np.float32)}.get(
                self.how, seen
            )
            reward = {"reward": float("inf"), "text": "much"}.get(self.how, reward)  # type: ignore[assignment]
        return seen, reward, ended, cut, info


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ("raises", r"must take a step, got ValueError: the motor is stuck"),
        ("shape", r"must return an observation of the shape \(1,\), got the shape \(2,\)"),
        ("nan", r"must return finite observations, got \[nan\]"),
        ("reward", r"must return a finite number as reward, got inf"),
        ("text", r"must return a finite number as reward, got 'much'"),
    ],
)
def test_a_fault_names_the_environment_the_episode_and_the_step(how: str, expected: str) -> None:
    training = small(lambda: Faulty(how))
    where = r"\(environment 0, episode 0 of seed \d+, step 3, after the action "
    with pytest.raises(EnvironmentFault, match=rf"Faulty {expected} {where}"):
        training.step()


def test_after_a_fault_a_run_goes_on_from_its_checkpoint(tmp_path: Path) -> None:
    def loop(run: str) -> Loop:
        every = CheckpointSchedule(steps=1)
        return Loop(
            small(Faulty),
            until=Steps(6),
            run=run,
            journal=Journal(tmp_path / "j.db"),
            checkpoint=every,
        )

    Faulty.broken = False
    whole = [step.report for step in loop("whole")]
    first = loop("broken")
    for step in first:
        if step.tick == 3:
            Faulty.broken = True
            break
    with pytest.raises(EnvironmentFault):
        first.run()
    Faulty.broken = False
    again = loop("broken")
    assert again.tick == 3
    assert [step.report for step in again] == whole[3:]


def test_spaces_that_no_policy_is_made_for_are_refused() -> None:
    class Words(Corridor):
        def __init__(self) -> None:
            super().__init__()
            self.observation_space = spaces.Sequence(spaces.Discrete(2))

    class Graphs(Corridor):
        def __init__(self) -> None:
            super().__init__()
            self.action_space = spaces.Tuple((spaces.Discrete(2),))

    with pytest.raises(InputError, match="The observations of Words must be of a fixed number"):
        Environments(Words)
    with pytest.raises(InputError, match="The actions of Graphs must be of the space Discrete"):
        Environments(Graphs)
    with pytest.raises(InputError, match=r"A table must be of .* Discrete observations"):
        QLearning(Environments(Target, 1))


def test_an_environment_that_is_not_there_is_told() -> None:
    with pytest.raises(InputError, match="The environment NoSuchGame-v0 cannot be made: "):
        make_environment("NoSuchGame-v0")
