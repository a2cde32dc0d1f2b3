"""Best of n: hopeless drafts are left early, the best of the others is kept."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import Any, cast

import pytest
from lane_rows import lane_rows
from tiny import tiny_model

from ostinato.checks import Choice, Function, Length, Regex
from ostinato.decode import Decode, SamplingParams, plain_prompt
from ostinato.errors import InputError, MissingExtra
from ostinato.loop import Lane, Lanes, Loop, Policy, Steps
from ostinato.refine import STRATEGIES, BestOf, Constrain, Refine
from ostinato.refine.strategies.best_of import BestOfSampler
from ostinato.refine.strategies.constrain import constraint_of
from ostinato.testing import check_lane_process

LIMIT = 8
NO_E = Function(function=lambda t: "e" not in t, prefix=lambda t: "e" not in t, name="no e")


def contest(slots: int, n: int = 4, parallel: int = 2, by: Any = "logprob") -> BestOfSampler:
    model = tiny_model()
    decode = Decode(
        model,
        plain_prompt(model.tokenizer.encode),
        sampling=SamplingParams(temperature=1.3),
        slots=slots * parallel,
        limit=LIMIT,
    )
    return BestOfSampler(decode, [NO_E, Length(min=2)], n=n, parallel=parallel, limit=LIMIT, by=by)


def test_a_contest_conforms() -> None:
    items = {"a": "Hello", "b": "The reply", "c": "Can you help me?"}
    check_lane_process(contest, items, steps=2 * LIMIT + 2, edits={"temperature": 2})


@pytest.mark.parametrize("by", ["logprob", "score"])
def test_the_best_whole_draft_is_kept_and_hopeless_ones_are_dropped_early(by: str) -> None:
    process = contest(1, n=12, by=by)
    lanes = Lanes(process, [("a", "Hello")], Policy(each=Steps(12 * LIMIT)), seed=1)
    loop = Loop(lanes, until=Steps(999))
    drafts: dict[str, list[float]] = {}
    rejected: dict[str, int] = {}
    finished: dict[str, list[float]] = {}
    row: Any = {}
    last: Any = {}
    for step in loop:
        for lane in step.lanes.values():
            last = lane.report
            for name, (_, logprob) in last["drawn"].items():
                drafts.setdefault(name, []).append(logprob)
            rejected |= {name: len(drafts[name]) for name in last["rejected"]}
            finished |= last["finished"]
        row = next((found.to_json() for found in step.results), row)
    assert len(drafts) == 12 and len(rejected) + len(finished) == 12
    assert rejected and min(rejected.values()) < LIMIT
    assert finished
    means = {name: sum(drafts[name]) / len(drafts[name]) for name in finished}

    def worth(name: str) -> tuple[float, ...]:
        passed, score = finished[name]
        return (passed, means[name], score) if by == "logprob" else (passed, score, means[name])

    assert str(last["chosen"]) == max(finished, key=worth)
    assert row["logprob"] == pytest.approx(sum(drafts[str(last["chosen"])]))
    assert "e" not in row["output"]


def test_an_item_without_a_whole_draft_shows_the_longest() -> None:
    process = contest(1, n=2)
    never = Function(function=lambda t: False, prefix=lambda t: len(t) < 3, name="never")
    process._checks = (never,)
    process.start(Lane("a"), "Hello")
    reports = [process.step()["a"] for _ in range(2 * LIMIT) if not _done(process)]
    assert reports
    assert len(process.output("a")) >= 3


def _done(process: BestOfSampler) -> bool:
    return any("ended" in report for report in process._groups["a"].past)


def job(strategy: Any, checks: list[Any], **more: Any) -> list[Any]:
    items = [{"id": n, "message": f"Text {n}", "want": f"code {n}"} for n in range(4)]
    return lane_rows(
        Refine(
            tiny_model(),
            items,
            prompt="{message}",
            checks=checks,
            strategy=strategy,
            sampling=SamplingParams(temperature=1.0),
            max_new_tokens=24,
            slots=4,
            **more,
        )
    )


def test_a_job_runs_by_best_of() -> None:
    rows = job(BestOf(n=3, parallel=2, rounds=3), [Length(max=200)])
    assert all(row["accepted"] for row in rows)


def test_constrain_makes_masks_of_what_it_can_and_backtracks_for_the_rest() -> None:
    from ostinato.checks import Contains, Excludes

    rows = job(
        Constrain(), [Length(max=12), Contains(column="want"), Excludes(texts=("the",)), NO_Q]
    )
    for n, row in enumerate(rows):
        assert row["accepted"], row["stopped"]
        assert f"code {n}" in row["output"].lower() and "q" not in row["output"]


NO_Q = Function(function=lambda t: "q" not in t, prefix=lambda t: "q" not in t, name="no q")


@pytest.mark.parametrize(
    ("options", "message"),
    [({"n": 0}, "n must be at least 1"), ({"by": "luck"}, "by must be 'logprob' or 'score'")],
)
def test_wrong_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        BestOf(**options)


@pytest.mark.parametrize("kind", sorted(STRATEGIES))
def test_an_item_that_is_too_long_is_set_aside_under_every_strategy(kind: str) -> None:
    strategy = replace(STRATEGIES[kind](), rounds=1)
    items = [{"message": "hello"}, {"message": "word " * 768}]
    job = Refine(
        tiny_model(),
        items,
        prompt="{message}",
        checks=[Length(max=9)],
        strategy=strategy,
        max_new_tokens=4,
    )
    good, long = cast("list[Any]", lane_rows(job))
    assert good["stopped"]["kind"] != "error"
    assert long["stopped"]["kind"] == "error" and "3088 tokens" in long["stopped"]["sentence"]


def test_a_draft_that_starts_late_reports_its_prompt_also_after_going_back() -> None:
    def reports(resumed: bool) -> list[Any]:
        process = contest(1, n=6, parallel=1)
        process.start(Lane("a", seed=3), "Hello")
        told = [process.step()["a"] for _ in range(2)]
        process.rewind(Lane("a", seed=3, backtracks=1), 1)
        told = told[:1]
        for n in range(14):
            if resumed and n == 5:
                process.drop("a")
                process.start(Lane("a", seed=3, backtracks=1, past=tuple(told)), "Hello")
            told.append(process.step()["a"])
        return told

    assert reports(False) == reports(True)
    assert any("prompt" in report for report in reports(False)[2:])


def test_masks_without_their_library_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "llguidance", None)
    with pytest.raises(MissingExtra, match=r"ostinato\[constrain\]"):
        constraint_of([Choice(texts=("sun", "moon"))], {})


def test_a_pattern_is_used_as_it_is() -> None:
    checks = [Regex(pattern="TEXT: & x"), Regex(pattern="x", name="two")]
    found = constraint_of(checks, {}).constraint
    assert found is not None and "TEXT: & x" in found.text


def test_a_long_prompt_leaves_masks_without_room_and_ends_no_item() -> None:
    job = Refine(
        tiny_model(),
        [{"message": "a " * 110}],
        prompt="{message}",
        checks=[Regex(pattern="a{40}b*")],
        strategy=Constrain(rounds=1),
        max_new_tokens=128,
    )
    (row,) = cast("list[Any]", lane_rows(job))
    assert row["stopped"]["kind"] != "error", row["stopped"]


def test_the_docs_hold_the_table_of_moments() -> None:
    from pathlib import Path

    from moments import table

    page = Path(__file__).parents[1] / "docs" / "strategies.md"
    assert table() in page.read_text(encoding="utf-8")
