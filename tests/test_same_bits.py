"""One item gives the same reply alone, in any batch, in any order: bits, not only words."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest
from tiny import tiny_model

from ostinato.checks import Contains, Excludes, Length
from ostinato.decode import SamplingParams
from ostinato.errors import InputError
from ostinato.models import LanguageModel, Tokenizer
from ostinato.refine import Abort, Backtrack, Feedback, Refine, Resample, Strategy

ITEMS = [
    {"id": str(n), "message": f"{'Can you help me with ' * (n % 5)}number {n}?", "say": ["help"]}
    for n in range(24)
]


def sure(output: str) -> bool:
    return True


def replies(
    slots: int, strategy: Strategy | None = None, order: list[int] | None = None
) -> dict[str, Any]:
    items = [ITEMS[i] for i in order] if order else ITEMS
    job = Refine(
        tiny_model(),
        items,
        prompt="{message}",
        checks=[Length(max=9), Excludes(texts=("7", "Q"), whole=False), Contains(column="say")],
        strategy=strategy or Backtrack(rounds=3),
        sampling=SamplingParams(temperature=1.0, top_k=60),
        max_new_tokens=20,
        seed=5,
        slots=slots,
    )
    rows = {str(row["id"]): dict(row) for row in job}
    for row in rows.values():  # what was shared of prompts depends on the company; replies do not
        row["tokens"] = {k: v for k, v in row["tokens"].items() if k != "prompt"}  # type: ignore[attr-defined]
    return rows


slow = pytest.mark.slow


@pytest.mark.parametrize("slots", [4, pytest.param(16, marks=slow), pytest.param(64, marks=slow)])
def test_replies_are_equal_in_every_batch(slots: int) -> None:
    assert replies(slots) == replies(1)


def test_replies_are_equal_in_every_order() -> None:
    order = list(range(len(ITEMS)))
    random.Random(3).shuffle(order)
    assert replies(16, order=order) == replies(16)


@pytest.mark.parametrize("strategy", [Resample(rounds=3), Feedback(rounds=3), Abort(rounds=5)])
def test_each_strategy_ends_every_item_with_its_reason(strategy: Strategy) -> None:
    rows = replies(8, strategy)
    assert len(rows) == len(ITEMS)
    for row in rows.values():
        assert row["stopped"]["sentence"]
        passed = bool(row["verdicts"]) and all(v["passed"] for v in row["verdicts"])
        assert row["accepted"] == passed  # an aborted draft has no verdicts
        assert row["rounds"] <= strategy.rounds
    assert rows == replies(3, strategy)


def test_backtracking_accepts_what_full_retry_does_not() -> None:
    accepted = {
        strategy.kind: sum(row["accepted"] for row in replies(16, strategy).values())
        for strategy in (Resample(rounds=2), Backtrack(rounds=2))
    }
    assert accepted["backtrack"] > accepted["resample"]


def test_an_empty_input_is_refused() -> None:
    with pytest.raises(InputError, match="at least one item, got none"):
        Refine(tiny_model(), [], prompt="x", checks=[sure])


@pytest.mark.parametrize(
    ("items", "message"),
    [
        ([{"message": "a", "id": None}], "id of item 1 must be a text or a whole number, got None"),
        ([{"message": "a"}, {"message": "b", "id": " "}], "id of item 2 must be"),
        ([(None, {"message": "a"})], "key of item 1 must be"),
        ([{"message": "a"}, "b"], "Item 2 must be a mapping of columns, or a pair"),
        ([("a", "b")], "Item 1 must be a mapping of columns, or a pair"),
        (
            [{"id": 1}, {"id": 2}, {"id": "1"}],
            "The id of item 3 must be unique, got '1', which item 1 has",
        ),
    ],
)
def test_bad_items_are_named_before_any_work(items: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Refine("no such model", items, prompt="x", checks=[sure])


@pytest.mark.parametrize("seed", [-1, 1 << 63])
def test_a_bad_seed_is_refused_before_the_model_is_loaded(seed: int) -> None:
    with pytest.raises(InputError, match="A seed must be a whole number from 0"):
        Refine("no such model", [{"message": "a"}], prompt="x", checks=[sure], seed=seed)


def without_template() -> LanguageModel:
    model = tiny_model()
    tokenizer = Tokenizer(model.tokenizer.backend, eos_ids=[2], chat_template=None)
    return replace(model, tokenizer=tokenizer)


def test_feedback_is_refused_at_the_start_for_a_model_without_a_chat_template() -> None:
    rows = [{"message": "a"}]
    with pytest.raises(InputError, match=r"no chat template.*from the strategy 'feedback'"):
        Refine(
            without_template(),
            rows,
            prompt="{message}",
            checks=[sure],
            strategy=Feedback(),
        )
    with pytest.raises(InputError, match="no chat template"):
        Refine(
            without_template(),
            rows,
            prompt=lambda r, e: [{"role": "user"}],
            checks=[sure],
        )
    Refine(without_template(), rows, prompt="{message}", checks=[sure])
    Refine(
        without_template(),
        rows,
        prompt=lambda r, e: str(e),
        checks=[sure],
        strategy=Feedback(),
    )


def test_an_item_without_an_id_is_known_by_its_content_not_by_its_row() -> None:
    rows = [{"message": "a"}, {"message": "b"}, {"message": "a"}]
    job = Refine(tiny_model(), rows, prompt="{message}", checks=[sure])
    turned = Refine(tiny_model(), rows[::-1], prompt="{message}", checks=[sure])
    assert sorted(key for key, _ in job.items) == sorted(key for key, _ in turned.items)
    assert len({key for key, _ in job.items}) == 3
