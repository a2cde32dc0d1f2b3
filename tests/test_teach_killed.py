"""A teaching that is killed at random ends as one never stopped: the same presses, once each."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

pytest.importorskip("gymnasium")

from ostinato.testing import Forks, check_killed


@pytest.fixture(scope="module")
def forks() -> Iterator[Forks]:
    with Forks("killable_minigame") as opened:
        yield opened


@pytest.mark.timeout(600)
def test_a_killed_teaching_equals_an_undisturbed_one(forks: Forks) -> None:
    assert check_killed("killable_minigame:teach", kills=2, seed=1, forks=forks) == 2


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_ten_kills_leave_no_trace(forks: Forks) -> None:
    assert check_killed("killable_minigame:teach", kills=10, seed=2, forks=forks) == 10
