"""Values that flows record come back as their annotations say, or are refused by name."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypedDict
from uuid import UUID

import pytest
import torch

from ostinato.errors import InputError
from ostinato.flow.recorded_error import rebuilt, written
from ostinato.flow.values import plain, recordable, typed


class Color(Enum):
    RED = "red"
    BLUE = "blue"


class Point(NamedTuple):
    x: int
    y: float


class Size(TypedDict):
    width: int


@dataclass
class Inner:
    when: datetime
    kind: Color = Color.RED


@dataclass(frozen=True)
class Outer:
    inner: list[Inner]
    by_name: dict[str, Point]
    places: tuple[Path, ...] = ()
    other: Inner | None = None
    kept: set[int] = field(default_factory=set)


MOMENT = datetime(2026, 12, 1, 10, 30, tzinfo=UTC)

VALUES = [
    (1, int),
    (1.5, float),
    ("a", str),
    (None, type(None)),
    ([1, 2], list[int]),
    ((1, "a"), tuple[int, str]),
    ((1, 2, 3), tuple[int, ...]),
    ({1, 2}, set[int]),
    (frozenset({"a"}), frozenset[str]),
    (MOMENT, datetime),
    (date(2026, 1, 2), date),
    (time(10, 30), time),
    (timedelta(seconds=90), timedelta),
    (Decimal("1.10"), Decimal),
    (UUID(int=7), UUID),
    (Path("a/b"), Path),
    (Color.BLUE, Color),
    (Point(1, 2.0), Point),
    ({"width": 3}, Size),
    ("b", Literal["a", "b"]),
    (MOMENT, datetime | None),
    (None, datetime | None),
    ("2026-01-02", str | date),
    (Inner(MOMENT, Color.BLUE), Inner),
    (
        Outer(
            inner=[Inner(MOMENT)],
            by_name={"a": Point(1, 2.5)},
            places=(Path("x"),),
            other=Inner(MOMENT),
            kept={3},
        ),
        Outer,
    ),
    ([{"a": [None, True]}], Any),
]


@pytest.mark.parametrize(("value", "hint"), VALUES, ids=lambda each: str(each)[:40])
def test_a_value_comes_back(value: object, hint: Any) -> None:
    import json

    kept = json.loads(json.dumps(recordable(value, hint, "It")))
    back = typed(kept, hint, "It")
    assert back == value and type(back) is type(value)


@pytest.mark.parametrize(
    ("value", "hint", "message"),
    [
        ("a", int, "It must be what its annotation says, int, got 'a'"),
        (True, int, "a bool is no int"),
        ({"a": 1}, Inner, "It must be what its annotation says, Inner"),
        ("c", Literal["a", "b"], "none of these"),
        ([1, "a"], list[int], "a str is no int"),
        (object(), Any, "It must be made of numbers.* got a object"),
        ({1: "a"}, dict[int, str], "It must have texts as keys, got 1"),
        ({"a": b"x"}, Any, r"It\['a'\] must be made of numbers.* got a bytes"),
        ((1, 2), Any, "It must be what JSON holds.* got a tuple"),
        ((1, 2), list[int], "got a tuple, of which a list comes back"),
    ],
)
def test_what_does_not_come_back_is_refused(value: object, hint: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        recordable(value, hint, "It")


def test_models_of_pydantic_come_back() -> None:
    pydantic = pytest.importorskip("pydantic")

    class Ticket(pydantic.BaseModel):  # type: ignore[name-defined, misc]
        number: int
        when: datetime

    ticket = Ticket(number=3, when=MOMENT)
    kept = plain([ticket], "It")
    assert typed(kept, list[Ticket], "It") == [ticket]
    with pytest.raises(InputError, match="Ticket"):
        typed({"number": "many"}, Ticket, "It")


def test_tensors_stay_for_the_journal_to_keep() -> None:
    tensor = torch.arange(4)
    kept = plain({"image": tensor}, "It")
    assert isinstance(kept, dict) and kept["image"] is tensor


class Custom(Exception):
    def __init__(self, one: str, two: int) -> None:
        super().__init__(one, two)


class Keyed(Exception):
    def __init__(self, *, name: str) -> None:
        super().__init__(f"no {name}")


@pytest.mark.parametrize(
    "error", [ValueError("a"), KeyError("b", 2), Custom("a", 1), OSError(2, "no")]
)
def test_an_exception_is_made_again(error: Exception) -> None:
    again = rebuilt("1:step", "…", written(error))
    assert type(again) is type(error) and again.args == error.args


@pytest.mark.parametrize(
    "value",
    [
        written(Keyed(name="x")),
        {"module": "os", "type": "system", "arguments": ["true"], "message": "x"},
        {"module": "nowhere", "type": "Missing", "arguments": [], "message": "x"},
        {"module": "builtins", "type": "SystemExit", "arguments": [], "message": ""},
        None,
    ],
)
def test_any_other_becomes_an_error_of_the_call(value: Any) -> None:
    again = rebuilt("1:step", "Keyed: no x", value)
    assert str(again) == "The call '1:step' has failed: Keyed: no x"
