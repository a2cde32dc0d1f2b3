"""The other token loops, killed with SIGKILL at random, end as ones never stopped."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ostinato.testing import Forks, check_killed

KINDS = ("lookup", "draft", "beam", "gru", "unmask")
MAKE = "killable_loops:write"


@pytest.fixture(scope="module")
def forks() -> Iterator[Forks]:
    with Forks("killable_loops") as opened:
        yield opened


@pytest.mark.timeout(300)
@pytest.mark.parametrize("kind", KINDS)
def test_a_killed_run_equals_an_undisturbed_one(kind: str, forks: Forks) -> None:
    assert check_killed(MAKE, kills=3, seed=1, arguments={"kind": kind}, forks=forks) >= 1


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("kind", KINDS)
def test_twenty_kills_leave_no_trace(kind: str, forks: Forks) -> None:
    assert check_killed(MAKE, kills=20, seed=2, arguments={"kind": kind}, forks=forks) == 20
