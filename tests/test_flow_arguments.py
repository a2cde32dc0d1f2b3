"""What a step is called with is recorded by its parameters' names, however it is given."""

from __future__ import annotations

import operator
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ostinato.flow import flow, step
from ostinato.journal import Journal


def plain(a: int, b: int = 2) -> int:
    return a + b


def only_by_name(a: int, *, b: int = 2) -> int:
    return a + b


def any_number(*a: int) -> int:
    return sum(a)


def none() -> int:
    return 3


@pytest.mark.parametrize(
    ("function", "args", "named", "recorded"),
    [
        (plain, (1, 2), {}, {"a": 1, "b": 2}),
        (plain, (1,), {"b": 2}, {"a": 1, "b": 2}),
        (plain, (), {"a": 1, "b": 2}, {"a": 1, "b": 2}),
        (plain, (1,), {}, {"a": 1}),
        (only_by_name, (1,), {"b": 2}, {"a": 1, "b": 2}),
        (any_number, (1, 2), {}, {"a": [1, 2]}),
        (any_number, (3,), {}, {"a": [3]}),
        (none, (), {}, {}),
        (max, (1, 3), {}, {"args": [1, 3]}),  # has no signature to read
        (operator.add, (1, 2), {}, {"a": 1, "b": 2}),
    ],
)
def test_arguments_are_recorded_by_name(
    tmp_path: Path,
    function: Callable[..., int],
    args: tuple[int, ...],
    named: dict[str, int],
    recorded: dict[str, Any],
) -> None:
    made = step(function)

    @flow
    def work() -> int:
        return made(*args, **named)

    with Journal(tmp_path / "journal.db") as journal:
        assert work.run(run="a", journal=journal) == 3
        (call,) = journal.get("a").calls()
        assert call.arguments == recorded
        assert work.run(run="a", journal=journal) == 3


def test_wrong_arguments_are_refused_as_python_does(tmp_path: Path) -> None:
    made: Any = step(plain)

    @flow
    def work(*, many: bool) -> int:
        result: int = made(1, 2, 3) if many else made()
        return result

    with Journal(tmp_path / "journal.db") as journal:
        with pytest.raises(TypeError, match="too many positional arguments"):
            work.run(many=True, run="a", journal=journal)
        with pytest.raises(TypeError, match="missing a required argument: 'a'"):
            work.run(many=False, run="b", journal=journal)
