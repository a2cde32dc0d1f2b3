"""A check that cannot judge, where several drafts are written for an item: `best_of` and `smc`."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from lane_rows import lane_rows
from tiny import tiny_model

from ostinato.checks import Function, Length
from ostinato.decode import Decode, SamplingParams, plain_prompt
from ostinato.loop import LaneProcess
from ostinato.refine import BestOf, Refine, Smc
from ostinato.refine.strategies.base import SteeringContext, Strategy
from ostinato.testing import check_lane_process

STRATEGIES = {
    "best_of": BestOf(n=3, parallel=2, rounds=4),
    "best_of by score": BestOf(n=3, parallel=3, rounds=4, by="score"),
    "smc": Smc(particles=3, rounds=4),
    "smc with failure_temperature": Smc(particles=3, rounds=4, failure_temperature=0.5),
}
every = pytest.mark.parametrize("name", STRATEGIES)


def rows(
    strategy: Strategy, judge: Callable[[str, Mapping[str, object]], object], **more: Any
) -> dict[str, Any]:
    """Write four items; return their results by id."""
    items = [{"id": f"{n}", "message": f"Text {n}"} for n in range(4)]
    job = Refine(
        tiny_model(),
        items,
        prompt="{message}",
        checks=[Length(max=200), Function(function=judge, name="mine")],
        strategy=strategy,
        sampling=SamplingParams(temperature=1.3),
        max_new_tokens=8,
        **more,
    )
    return {str(row["key"]): row for row in lane_rows(job)}


def raising_on_item_two(text: str, item: Mapping[str, object]) -> object:
    if item["id"] == "2":
        raise KeyError("price")
    return True


def hanging_on_item_two(text: str, item: Mapping[str, object]) -> object:
    if item["id"] == "2":
        threading.Event().wait(30)
    return True


@every
@pytest.mark.parametrize("judge", [raising_on_item_two, hanging_on_item_two])
def test_an_item_that_could_not_be_judged_is_an_error_and_the_others_continue(
    name: str, judge: Any
) -> None:
    found = rows(STRATEGIES[name], judge, time_limit=0.3)
    assert [found[key]["accepted"] for key in "0123"] == [True, True, False, True]
    broken = found["2"]
    assert broken["stopped"]["kind"] == "error"
    assert broken["stopped"]["sentence"].startswith("A check could not judge. mine: The check ")
    length, mine = broken["verdicts"]
    assert length["passed"] and mine["error"] and mine["score"] is None and not mine["passed"]
    assert broken["rounds"] == 1  # no draft can mend a check


def raising_on_some(text: str, item: Mapping[str, object]) -> object:
    """Judge by the length of the text, so that some drafts of an item pass, fail and raise."""
    if len(text) % 3 == 0:
        raise ValueError("a third of all texts")
    return len(text) % 3 == 1


def raising_on_length(text: str) -> object:
    return raising_on_some(text, {})


@every
def test_only_a_draft_that_was_judged_is_accepted(name: str) -> None:
    found = [
        row
        for seed in range(4)
        for row in rows(STRATEGIES[name], raising_on_some, seed=seed).values()
    ]
    for row in found:
        rest = len(row["output"]) % 3
        if row["accepted"]:
            assert rest == 1
        elif row["stopped"]["kind"] == "error":
            assert row["attempts"][-1]["verdicts"][1]["score"] is None
        else:
            assert rest == 2
    kinds = {row["stopped"]["kind"] for row in found}
    assert {"passed", "error"} <= kinds


@pytest.mark.parametrize("name", ["best_of", "best_of by score"])
def test_a_draft_that_could_not_be_judged_ends_an_item_of_which_none_passes(name: str) -> None:
    """As under every strategy: no draft can mend a check, so no other round is written."""
    raised: set[tuple[int, str]] = set()

    def judge(text: str, item: Mapping[str, object]) -> object:
        if len(text) % 11 == 0:
            raised.add((seed, str(item["id"])))
            raise ValueError("one text in eleven")
        return False

    for seed in range(3):
        for key, row in rows(STRATEGIES[name], judge, seed=seed).items():
            assert not row["accepted"]
            assert (row["stopped"]["kind"] == "error") == ((seed, key) in raised)
    assert 0 < len(raised) < 12


@every
def test_a_group_with_a_check_that_raises_is_brought_back_with_the_same_bits(name: str) -> None:
    strategy = STRATEGIES[name]
    checks = [Function(function=raising_on_length, name="mine")]
    model = tiny_model()

    def process(slots: int) -> LaneProcess:
        decode = Decode(
            model,
            plain_prompt(model.tokenizer.encode),
            sampling=SamplingParams(temperature=1.3),
            slots=slots * strategy.lanes,
            limit=8,
        )
        return strategy.process(decode, SteeringContext(model.tokenizer.encode, None, checks))

    items = {"a": "Hello", "b": "The reply"}
    check_lane_process(process, items, steps=strategy.steps(8), edits={"temperature": 2})
