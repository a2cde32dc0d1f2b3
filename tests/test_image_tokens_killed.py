"""Drawings and their trainings, killed with SIGKILL at random, end as ones never stopped."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ostinato.testing import Forks, check_killed

DRAW, LEARN = "killable_tokens:draw", "killable_tokens:learn"
QUICK = [(DRAW, "row"), (DRAW, "unmask"), (DRAW, "coarse"), (LEARN, "codes"), (LEARN, "unmask")]
ALL = [*QUICK, (DRAW, "pixels"), (LEARN, "row"), (LEARN, "coarse")]


@pytest.fixture(scope="module")
def forks() -> Iterator[Forks]:
    with Forks("killable_tokens") as opened:
        yield opened


@pytest.mark.timeout(600)
@pytest.mark.parametrize(("make", "method"), QUICK, ids=str)
def test_a_killed_run_equals_an_undisturbed_one(make: str, method: str, forks: Forks) -> None:
    assert check_killed(make, kills=1, seed=1, arguments={"method": method}, forks=forks) == 1


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize(("make", "method"), ALL, ids=str)
def test_ten_kills_leave_no_trace(make: str, method: str, forks: Forks) -> None:
    assert check_killed(make, kills=10, seed=1, arguments={"method": method}, forks=forks) == 10
