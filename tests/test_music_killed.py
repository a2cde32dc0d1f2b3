"""Pieces and their training, killed with SIGKILL at random, end as ones never stopped."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ostinato.testing import Forks, check_killed

MADE = ["killable_music:write", "killable_music:learn"]


@pytest.fixture(scope="module")
def forks() -> Iterator[Forks]:
    with Forks("killable_music") as opened:
        yield opened


@pytest.mark.timeout(600)
@pytest.mark.parametrize("make", MADE)
def test_a_killed_run_equals_an_undisturbed_one(make: str, forks: Forks) -> None:
    assert check_killed(make, kills=1, seed=1, forks=forks) == 1


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("make", MADE)
def test_ten_kills_leave_no_trace(make: str, forks: Forks) -> None:
    assert check_killed(make, kills=10, seed=1, forks=forks) == 10
