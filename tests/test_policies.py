"""A policy for each item: its own stop, judge and strategy, in one batch and after a resume."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from toys import Speller

from ostinato import Policy
from ostinato.errors import InputError, RunError
from ostinato.journal import Journal, StopKind
from ostinato.loop import (
    Action,
    Budget,
    Exceeds,
    GiveUp,
    GoBack,
    History,
    Lanes,
    Loop,
    OnStop,
    Phrase,
    Reaches,
    StartOver,
    Steps,
    Verdict,
)

SHORT, LONG, PLAIN = "short", "long", "plain"
ITEMS = [(f"{kind}{n}", kind) for n in range(6) for kind in (SHORT, LONG, PLAIN)]


def at_most(length: int) -> Any:
    def judge(output: object, item: str) -> Sequence[Verdict]:
        return [Verdict(item, len(str(output)) <= length, message="Too long.")]

    return judge


def without(letter: str) -> Any:
    def judge(output: object, item: str) -> Sequence[Verdict]:
        return [Verdict(item, letter not in str(output), message=f"{letter} is there.")]

    return judge


def forbid(letter: str) -> OnStop:
    def answer(stopped: Any, history: History) -> Action:
        return GoBack(str(history.output).index(letter), {"forbid": [letter]})

    return answer


def again(stopped: Any, history: History) -> Action:
    return StartOver() if history.lane.round < 3 else GiveUp("Out of rounds.")


POLICIES = {
    SHORT: Policy(each=Steps(50), judge=at_most(4), on_stop=again),
    LONG: Policy(each=Steps(9) | Budget("tokens", 60), judge=without("b"), on_stop=forbid("b")),
    PLAIN: Policy(each=lambda step: "It has an a." if "a" in str(step.output) else False),
}


def lanes(slots: int = 4, kinds: Sequence[str] = tuple(POLICIES), **policies: Policy) -> Lanes:
    items = [(key, kind) for key, kind in ITEMS if kind in kinds]
    return Lanes(Speller(slots), items, (POLICIES | policies).__getitem__, seed=3)


def results(of: Lanes, steps: int = 10_000) -> dict[str, Any]:
    rows: dict[str, Any] = {}
    for step in Loop(of, until=Steps(steps)):
        rows |= {one.key: one.to_json() for one in step.results}
    return rows


def test_each_item_is_stopped_judged_and_answered_by_its_own_policy() -> None:
    rows = results(lanes())
    assert set(rows) == {key for key, _ in ITEMS}
    for key, kind in ITEMS:
        row = rows[key]
        answers = {attempt["answer"]["answer"] for attempt in row["attempts"]}
        assert {verdict["check"] for verdict in row["verdicts"]} == {kind} - {PLAIN}
        if kind == SHORT:
            assert answers <= {"accept", "start over", "give up"}
            assert not row["accepted"] or len(row["output"]) <= 4
        if kind == LONG:
            assert answers <= {"accept", "go back", "give up"}
            assert row["length"] <= 9 and "b" not in row["output"]
        if kind == PLAIN:
            assert row["stopped"]["sentence"] in ("It has an a.", "It wrote a full stop.")
    assert any(row["rounds"] > 1 for row in rows.values())
    assert any(row["backtracks"] for row in rows.values())


def test_an_item_s_result_does_not_depend_on_whose_policies_share_its_batch() -> None:
    together = results(lanes(slots=5))
    for kind in POLICIES:
        for key, row in results(lanes(slots=2, kinds=[kind])).items():
            assert {**row, "index": 0} == {**together[key], "index": 0}


def test_a_run_from_any_saved_state_gives_the_same_results() -> None:
    expected = results(lanes())
    for cut in (1, 3, 8, 20):
        first = lanes()
        rows = results(first, cut)
        state = json.loads(json.dumps(first.state_dict()))
        second = lanes()
        second.load_state_dict(state)
        assert json.loads(json.dumps(second.state_dict())) == state
        assert rows | results(second) == expected


def test_a_recorded_run_is_resumed_under_the_policies_of_its_items(tmp_path: Path) -> None:
    def run(steps: int) -> dict[str, Any]:
        with Journal(tmp_path / "j.db") as journal:
            Loop(lanes(), until=Steps(steps), run="r", journal=journal).run()
            return dict(journal.get("r").results())

    assert set(run(5)) < set(run(10_000)) == set(results(lanes()))


def test_a_draft_in_work_is_not_resumed_under_another_condition() -> None:
    first = lanes(kinds=[LONG])
    first.step()
    before = "Steps(9) | Budget('tokens', limit=60)"
    for other in (Steps(8), Steps(9), Phrase("b") | Steps(9)):
        with pytest.raises(RunError) as refused:
            lanes(kinds=[LONG], long=Policy(each=other)).load_state_dict(first.state_dict())
        assert f"started with, {before}, got {other}. Give the same one" in str(refused.value)


def test_a_state_of_one_condition_for_all_items_is_resumed() -> None:
    """As older versions saved it: named once, and in no draft."""
    policy = Policy(each=Steps(7), judge=without("b"), on_stop=again)

    def of(policy: Any) -> Lanes:
        return Lanes(Speller(4), ITEMS, policy, seed=3)

    expected, first = results(of(policy)), of(policy)
    done = results(first, 6)
    state = json.loads(json.dumps(first.state_dict()))
    for draft in state["drafts"]:
        assert draft.pop("each") == "Steps(7)"
    for again_ in (policy, lambda item: policy):
        second = of(again_)
        second.load_state_dict(state)
        assert done | results(second) == expected
    for other in (Policy(each=Steps(8)), lambda item: Policy(each=Steps(8))):
        with pytest.raises(RunError, match=r"started with, Steps\(7\), got Steps\(8\)"):
            of(other).load_state_dict(state)


def test_every_policy_s_metrics_are_waited_for_and_each_is_told_of_once() -> None:
    kinds = {"a": Reaches("tokens", above=9), "b": Exceeds("tokns", above=9)}
    items = [(f"{kind}{n}", kind) for n in range(40) for kind in "ab"]
    of = Lanes(Speller(4), items, lambda item: Policy(each=kinds[item] | Steps(20)))
    with pytest.warns(UserWarning, match=r"on 'tokns' cannot.*Did you mean 'tokens'\?") as told:
        results(of)
    assert len(told) == 1


def test_a_policy_that_comes_late_is_not_told_of_before_its_metric_could_come() -> None:
    late = Policy(each=Reaches("letters", above=9) | Steps(2))
    items = [(f"{n}", n) for n in range(60)]
    of = Lanes(Speller(1), items, lambda n: late if n == 59 else Policy(each=Steps(9)))
    # More reports than a name is waited for come before the last item.
    with pytest.warns(UserWarning, match=r"none of the [12] reports so far has it"):
        results(of)


@pytest.mark.parametrize("wrong", [Steps(5), None, "Steps(5)"])
def test_what_is_no_policy_is_refused(wrong: Any) -> None:
    with pytest.raises(InputError, match=r"must be a Policy, or a function.*Policy\(each="):
        Lanes(Speller(), ITEMS, wrong)
    with pytest.raises(InputError, match=r"of an item must be a Policy, got .*Return for example"):
        results(Lanes(Speller(), ITEMS, lambda item: wrong))


def test_a_policy_needs_a_condition() -> None:
    with pytest.raises(InputError, match="must be a Condition or a callable, got 5"):
        Policy(each=5)  # type: ignore[arg-type]


def test_an_answer_that_is_ready_is_ready_for_its_own_item_only() -> None:
    ready = Policy(each=Steps(9), ready=lambda item: f"{item}!")
    rows = results(lanes(short=ready))
    by_kind = {kind: [rows[key] for key, one in ITEMS if one == kind] for kind in POLICIES}
    assert {row["output"] for row in by_kind[SHORT]} == {"short!"}
    assert {row["stopped"]["condition"] for row in by_kind[SHORT]} == {"ready"}
    assert all(row["length"] for row in by_kind[LONG] + by_kind[PLAIN])
    assert all(row["stopped"]["kind"] != StopKind.ERROR for row in rows.values())


@pytest.mark.parametrize("returned", [None, True, [True], "passed", [Verdict("a", True), None]])
def test_a_judge_that_returns_no_verdicts_is_refused(returned: Any) -> None:
    policy = Policy(each=Steps(3), judge=lambda output, item: returned)
    loop = Loop(Lanes(Speller(1), [("a", 1)], policy))
    with pytest.raises(InputError, match="A judge must return verdicts, got"):
        loop.run()


@pytest.mark.parametrize("returned", [None, "again", 1])
def test_a_strategy_that_returns_no_action_is_refused(returned: Any) -> None:
    def fails(output: object, item: object) -> list[Verdict]:
        return [Verdict("never", False)]

    policy = Policy(each=Steps(3), judge=fails, on_stop=lambda stopped, history: returned)
    with pytest.raises(InputError, match="A strategy must return Accept"):
        Loop(Lanes(Speller(1), [("a", 1)], policy)).run()
    with pytest.raises(InputError, match="A strategy must return Accept"):
        loss = {"loss": 2.0}
        Loop(lambda: loss, until=Exceeds("loss", above=1), on_stop=lambda *_: returned).run()


@pytest.mark.parametrize("name", ["judge", "on_stop", "ready", "edited"])
def test_a_field_that_is_no_function_is_refused(name: str) -> None:
    wrong: dict[str, Any] = {name: 3}
    with pytest.raises(InputError, match=rf"Policy\({name}\) must be a function, got 3"):
        Policy(each=Steps(1), **wrong)


def test_the_class_is_no_policy() -> None:
    wrong: Any = Policy
    with pytest.raises(InputError, match="The policy of lanes must be a Policy"):
        Lanes(Speller(1), [("a", 1)], wrong)
