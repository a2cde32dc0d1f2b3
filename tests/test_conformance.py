"""Every process of ours is one line here."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from toys import Speller, Walk

from ostinato.loop import Edits, Report, Timeline
from ostinato.testing import check_lane_process, check_process


def test_a_walk_conforms() -> None:
    check_process(Walk, cuts=(0, 1, 10, 11))


def test_a_speller_conforms() -> None:
    items = {"a": 1, "b": 2, "c": 3}
    check_lane_process(Speller, items, steps=20, edits={"forbid": ["a", "."]})


class Forgetful(Walk):
    """Leaves its steps out of its state."""

    def state_dict(self) -> dict[str, object]:
        return {"place": self.place, "rate": self.rate, "steps": 0}


class Moody(Walk):
    """Depends on more than its seed."""

    made = 0

    def __init__(self) -> None:
        Moody.made += 1
        super().__init__(seed=Moody.made)


class Meek(Walk):
    """Takes any edit in silence."""

    def change(self, edits: Edits) -> None: ...


@pytest.mark.parametrize(
    ("process", "message"),
    [
        (Forgetful, "resume"),
        (Moody, "Two runs with one seed must be equal bit for bit: value"),
        (Meek, "must raise EditError"),
    ],
)
def test_what_does_not_conform_is_told_by_promise_and_place(process: Any, message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        check_process(process)


class Crowded(Speller):
    """Yields something else in company."""

    def step(self) -> Any:
        reports = super().step()
        return {k: {**dict(r), "company": len(reports)} for k, r in reports.items()}


class Deaf(Speller):
    """Does not go back."""

    def rewind(self, lane: Any, to: int) -> None:
        self._lanes[lane.key] = lane


@pytest.mark.parametrize(
    ("process", "message"),
    [(Crowded, "alone and in company"), (Deaf, "Going back and starting there|must move")],
)
def test_lanes_that_do_not_conform_are_told_by_promise(process: Any, message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        check_lane_process(process, {"a": 1, "b": 2, "c": 3}, steps=20)


class Swallower(Speller):
    """Does not repeat itself, and takes any edit in silence."""

    deterministic = False

    def start(self, lane: Any, item: object) -> None:
        super().start(replace(lane, edits=Timeline()), item)


def test_a_lane_process_that_does_not_repeat_itself_must_refuse_unknown_edits_too() -> None:
    items = {"a": 1, "b": 2, "c": 3}
    with pytest.raises(AssertionError, match="must raise EditError"):
        check_lane_process(Swallower, items, steps=20)


def test_reports_are_plain_mappings() -> None:
    report: Report = Walk().step()
    assert set(report) == {"place", "epoch", "tokens"}
