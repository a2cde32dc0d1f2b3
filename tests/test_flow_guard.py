"""Flows that would not make the same calls again are refused before they run."""

from __future__ import annotations

import datetime
import random
import time
import uuid
from collections.abc import Callable
from datetime import date
from random import choice as pick
from typing import Any

import pytest

from ostinato.errors import InputError
from ostinato.flow import flow, step
from ostinato.flow.guard import require_repeatable

WORDS = {"a", "b"}


def draws() -> float:
    return random.random()


def picks() -> str:
    return pick(["a", "b"])


def clocks() -> float:
    return time.time()


def today() -> date:
    return date.today()


def this_moment() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


def names() -> str:
    return str(uuid.uuid4())


def person() -> str:
    return input("How? ")


def each_of_a_set() -> list[str]:
    found = []
    for word in {"a", "b"}:
        found.append(word)
    return found


def listed() -> list[str]:
    words = {"a", "b"}
    words = words | {"c"}
    return list(words)


def comprehended() -> list[str]:
    return [word + "!" for word in set("ab")]


def joined() -> str:
    return ", ".join({"a", "b"})


def helped() -> float:
    return [draws()][0]


def seeded() -> float:
    return random.Random(7).random()


def ordered() -> list[str]:
    words = {"a", "b"}
    return [*sorted(words), *(sorted(word for word in words)), str(len(words)), str("a" in words)]


def measured() -> datetime.date:
    return datetime.date(2026, 12, 1) + datetime.timedelta(days=1)


def local(random: Any = None) -> Any:
    return random.random() if random else 0


@step
def drawn() -> float:
    return random.random()


def in_a_step() -> float:
    return drawn()


@pytest.mark.parametrize(
    ("function", "what", "fix"),
    [
        (draws, r"random\.random\(\)", "uniform"),
        (picks, r"pick\(\)", "uniform"),
        (clocks, r"time\.time\(\)", "now"),
        (today, r"date\.today\(\)", "now"),
        (this_moment, r"datetime\.datetime\.now\(\)", "now"),
        (names, r"uuid\.uuid4\(\)", "uniform"),
        (person, r"input\(\)", "ask"),
        (each_of_a_set, "the order of a set", "sorted"),
        (listed, "the order of a set", "sorted"),
        (comprehended, "the order of a set", "sorted"),
        (joined, "the order of a set", "sorted"),
        (helped, r"random\.random\(\)", "uniform"),
    ],
)
def test_what_is_different_each_time_is_named(
    function: Callable[[], Any], what: str, fix: str
) -> None:
    with pytest.raises(InputError, match=rf"{what} is different each time, at .*\.py:\d+.*{fix}"):
        flow(function)()


@pytest.mark.parametrize("function", [seeded, ordered, measured, local, in_a_step])
def test_what_is_the_same_each_time_is_let_through(function: Callable[[], Any]) -> None:
    require_repeatable(function)


def test_the_line_is_that_of_the_call() -> None:
    with pytest.raises(InputError) as raised:
        require_repeatable(each_of_a_set)
    line = each_of_a_set.__code__.co_firstlineno + 2
    assert f"test_flow_guard.py:{line} in each_of_a_set" in str(raised.value)
