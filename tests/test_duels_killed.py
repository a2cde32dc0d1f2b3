"""A duel that acts by itself, killed at random steps: the same bits as never stopped."""

from __future__ import annotations

import pytest
from killable_duels import duel

from ostinato.loop import GoBack
from ostinato.testing import Forks, check_killed


def test_the_duel_goes_back_to_before_the_trouble_and_adapts() -> None:
    """What is killed below does all that it is killed for."""
    loop = duel()
    reports = [step.report for step in loop]
    actions = [attempt.action for attempt in loop.attempts]
    assert actions and all(isinstance(action, GoBack) for action in actions)
    assert all(attempt.stopped.last_good is not None for attempt in loop.attempts)
    assert max(float(str(report.get("augment/p", 0))) for report in reports) > 0


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_killed_duel_equals_an_undisturbed_one() -> None:
    with Forks("killable_duels") as forks:
        assert check_killed("killable_duels:duel", kills=8, seed=3, forks=forks) >= 4
