"""Lanes: full slots, a stop of its own for each lane, the four answers, resume from a state."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from toys import Speller

from ostinato.errors import EditError, InputError
from ostinato.journal import Journal, StopKind, Stopped
from ostinato.loop import (
    Accept,
    Action,
    Budget,
    Condition,
    GiveUp,
    GoBack,
    History,
    Lanes,
    Loop,
    OnStop,
    Policy,
    Seconds,
    StartOver,
    Steps,
    Text,
    Verdict,
    uniform,
)

ITEMS = [(f"item{n}", {"n": n}) for n in range(30)]


def no_b(output: object, item: object) -> Sequence[Verdict]:
    text = str(output)
    return [
        Verdict("no b", "b" not in text, 1 / (1 + text.count("b")), "b is there."),
        Verdict("not empty", len(text) > 2, message="Too short."),
    ]


def mend(stopped: Stopped, history: History) -> Action:
    """Go back to the first b and forbid it; start over three times; then give up."""
    assert isinstance(history.output, str)
    place = history.output.find("b")
    if place >= 0:
        return GoBack(place, {"forbid": ["b"]})
    return StartOver() if history.lane.round < 3 else GiveUp("Out of rounds.")


def spell(
    items: Sequence[tuple[str, object]] = ITEMS,
    slots: int = 4,
    each: Condition | None = None,
    on_stop: OnStop = mend,
) -> tuple[dict[str, Any], Lanes]:
    lanes = Lanes(
        Speller(slots), items, Policy(each=each or Steps(50), judge=no_b, on_stop=on_stop), seed=3
    )
    rows: dict[str, Any] = {}
    for step in Loop(lanes, until=Steps(100_000)):
        rows |= {one.key: one.to_json() for one in step.results}
    return rows, lanes


def test_every_item_gets_a_result_with_its_reason() -> None:
    lanes = Lanes(Speller(), ITEMS, Policy(each=Steps(50), judge=no_b, on_stop=mend), seed=3)
    loop = Loop(lanes, until=Steps(100_000))
    rows: dict[str, Any] = {}
    for step in loop:
        rows |= {key: s for key, s in step.lanes.items() if isinstance(s.action, Accept)}
    assert loop.stopped is not None
    assert loop.stopped.sentence == "All 30 items are done."
    assert loop.stopped.kind is StopKind.ENDED
    assert len(rows) == 30


def test_what_an_item_yields_does_not_depend_on_its_company() -> None:
    alone, _ = spell(slots=1)
    together, _ = spell(slots=16)
    shuffled = list(ITEMS)
    random.Random(1).shuffle(shuffled)
    mixed, _ = spell(items=shuffled, slots=5)
    for key in alone:
        del alone[key]["index"], together[key]["index"], mixed[key]["index"]
    assert alone == together == mixed


def test_going_back_keeps_what_was_before_and_spends_what_was_after() -> None:
    rows, _ = spell()
    row = next(row for row in rows.values() if row["backtracks"])
    back = next(a for a in row["attempts"] if a["answer"]["answer"] == "go back")
    kept = back["text"][: back["answer"]["to"]]
    assert str(row["output"]).startswith(kept)
    assert row["spent"]["tokens"] > row["length"]
    assert row["accepted"]


def test_a_run_from_any_saved_state_gives_the_same_results() -> None:
    expected, _ = spell()
    for cut in (1, 2, 7, 19, 40):
        first = Lanes(Speller(), ITEMS, Policy(each=Steps(50), judge=no_b, on_stop=mend), seed=3)
        rows: dict[str, Any] = {}
        for step in Loop(first, until=Steps(cut)):
            rows |= {one.key: one.to_json() for one in step.results}
        state = json.loads(json.dumps(first.state_dict()))
        second = Lanes(Speller(), ITEMS, Policy(each=Steps(50), judge=no_b, on_stop=mend), seed=3)
        second.load_state_dict(state)
        assert json.loads(json.dumps(second.state_dict())) == state
        for step in Loop(second, until=Steps(100_000)):
            rows |= {one.key: one.to_json() for one in step.results}
        assert rows == expected
        assert step.report["accepted"] == sum(bool(row["accepted"]) for row in rows.values())


def test_the_best_draft_is_given_when_the_strategy_gives_up() -> None:
    def resample(stopped: Stopped, history: History) -> Action:
        return StartOver() if history.lane.round < 2 else GiveUp("Out of rounds.")

    rows, _ = spell(on_stop=resample)
    given_up = [row for row in rows.values() if not row["accepted"]]
    assert given_up
    for row in given_up:
        scores = [sum(v["score"] for v in a["verdicts"]) for a in row["attempts"]]
        texts = [a["text"] for a in row["attempts"]]
        passed = [sum(v["passed"] for v in a["verdicts"]) for a in row["attempts"]]
        best = max(zip(passed, scores, strict=True))
        assert row["output"] == texts[list(zip(passed, scores, strict=True)).index(best)]
        assert str(row["stopped"]["sentence"]).startswith("Out of rounds.")


def test_an_item_s_budget_ends_it_whatever_the_strategy_says() -> None:
    def for_ever(stopped: Stopped, history: History) -> Action:
        return StartOver()

    rows, _ = spell(each=Steps(50) | Budget("tokens", 20), on_stop=for_ever)
    spent = [row["spent"]["tokens"] for row in rows.values()]
    assert max(spent) <= 20
    cut = [row["stopped"] for row in rows.values() if row["stopped"]["kind"] == "budget"]
    assert cut and all(row["accepted"] or row["stopped"] in cut for row in rows.values())
    for stopped in cut:
        assert stopped["condition"] == "Budget('tokens', limit=20)"
        assert stopped["sentence"].startswith("20 tokens have been spent; the limit is 20. ")
        assert stopped["sentence"].count("tokens have been spent") == 1


def test_a_budget_that_ends_a_draft_without_checks_is_told_once() -> None:
    lanes = Lanes(Speller(), ITEMS, Policy(each=Steps(50) | Budget("tokens", 3)))
    rows: dict[str, Any] = {}
    for step in Loop(lanes, until=Steps(1000)):
        rows |= {one.key: one.to_json() for one in step.results}
    told = "3 tokens have been spent; the limit is 3."
    cut = [row["stopped"] for row in rows.values() if row["stopped"]["kind"] == "budget"]
    assert cut and all(stopped["sentence"] == told for stopped in cut)


def test_edits_after_the_place_gone_back_to_lapse_and_those_before_stay() -> None:
    seen: list[tuple[tuple[int, object], ...]] = []
    answers = iter([GoBack(3, {"forbid": ["a"]}), GoBack(5, {"forbid": ["c"]}), GoBack(3)])

    def watch(stopped: Stopped, history: History) -> Action:
        seen.append(history.lane.edits.entries)
        return next(answers, GiveUp())

    def bad(output: object, item: object) -> Sequence[Verdict]:
        return [Verdict("never", False, 0.0, "No.")]

    items = [("long", None)]
    lanes = Lanes(Speller(1), items, Policy(each=Steps(8), judge=bad, on_stop=watch), seed=5)
    Loop(lanes, until=Steps(100)).run()
    assert seen[1] == ((3, {"forbid": ["a"]}),)
    assert seen[2] == ((3, {"forbid": ["a"]}), (5, {"forbid": ["c"]}))
    assert seen[3] == ((3, {"forbid": ["a"]}),)


def test_a_change_from_outside_stays_at_its_place_and_names_what_is_judged() -> None:
    judged: list[object] = []
    seen: list[tuple[tuple[int, object], ...]] = []
    answers: Iterator[Action] = iter([GoBack(1, {"forbid": ["a"]}), StartOver()])

    def watch(stopped: Stopped, history: History) -> Action:
        seen.append(history.lane.edits.entries)
        return next(answers, GiveUp())

    def bad(output: object, item: object) -> Sequence[Verdict]:
        judged.append(item)
        return [Verdict("never", False, 0.0, "No.")]

    def lanes() -> Lanes:
        return Lanes(
            Speller(1),
            [("long", "b and c")],
            Policy(
                each=Steps(8),
                judge=bad,
                on_stop=watch,
                edited=lambda item, edits: f"{item}, without {edits['forbid']}",
            ),
            seed=5,
        )

    first = lanes()
    for _ in range(3):
        first.step()
    first.change({"lane": "long", "forbid": ["c"]})
    again = lanes()
    again.load_state_dict(first.state_dict())
    Loop(again, until=Steps(100)).run()
    changed = (3, {"forbid": ["c"]})
    assert seen == [(changed,), ((1, {"forbid": ["a"]}), changed), (changed,)]
    assert judged == ["b and c, without ['c']"] * 3


def test_going_back_before_two_images_drops_the_strategys_and_compares_neither() -> None:
    first, second = torch.zeros(2), torch.ones(2)  # as of a `renoise`: two tensors have no truth
    seen: list[tuple[tuple[int, object], ...]] = []
    answers = iter([GoBack(3, {"forbid": first}), GoBack(1)])

    def watch(stopped: Stopped, history: History) -> Action:
        seen.append(history.lane.edits.entries)
        return next(answers, GiveUp())

    def bad(output: object, item: object) -> Sequence[Verdict]:
        return [Verdict("never", False, 0.0, "No.")]

    items = [("long", None)]
    lanes = Lanes(Speller(1), items, Policy(each=Steps(8), judge=bad, on_stop=watch), seed=5)
    while not seen:
        lanes.step()
    lanes.change({"forbid": second})
    Loop(lanes, until=Steps(100)).run()
    assert [at for at, _ in seen[1]] == [3, 3]
    assert seen[2] == ((3, {"forbid": second}),)


def test_an_item_that_cannot_be_worked_on_is_set_aside_and_the_rest_goes_on() -> None:
    items: list[tuple[str, object]] = [("good", 1), ("bad", "broken"), ("fine", 2)]
    rows, _ = spell(items=items, slots=1)
    assert rows["bad"]["stopped"]["kind"] == "error"
    assert rows["bad"]["stopped"]["sentence"] == "This item is broken."
    assert set(rows) == {"good", "bad", "fine"}


def test_a_key_that_comes_twice_is_refused() -> None:
    with pytest.raises(InputError, match="must be unique, got 'a' twice"):
        Lanes(Speller(), [("a", 1), ("b", 2), ("a", 3)], Policy(each=Steps(50)))


class Lazy:
    """Items that are read as they are needed."""

    def __init__(self, *items: tuple[str, object]) -> None:
        self.items = items

    def __iter__(self) -> Iterator[tuple[str, object]]:
        yield from self.items


def test_a_key_that_comes_twice_late_loses_no_work(tmp_path: Path) -> None:
    items = [("a", 1), ("b", 2), ("c", 3), ("a", 4), ("d", 5)]
    expected, _ = spell(items=[*items[:3], items[4]], slots=2)

    def loop(items: Iterable[tuple[str, object]]) -> Loop:
        lanes = Lanes(Speller(2), items, Policy(each=Steps(50), judge=no_b, on_stop=mend), seed=3)
        return Loop(lanes, until=Steps(1000), run="r", journal=Journal(tmp_path / "j.db"))

    with pytest.raises(InputError, match="got 'a' twice"):
        loop(Lazy(*items)).run()
    journal = Journal(tmp_path / "j.db")
    done = dict(journal.get("r").results())
    assert done == {key: expected[key] for key in ("a", "b", "c")}
    again = loop(Lazy(*items[:3], items[4]))
    assert again.run().kind is StopKind.ENDED
    assert dict(journal.get("r").results()) == expected


def test_a_lane_s_clock_does_not_run_during_a_break(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr("ostinato.loop.conditions.budgets.time.monotonic", lambda: now)
    lanes = Lanes(Speller(2), ITEMS[:2], Policy(each=Seconds(5) | Steps(50)), seed=3)
    loop = Loop(lanes, until=Steps(1000))
    next(iter(loop))
    now += 1000  # an hour's break or so
    rows = {one.key: one.to_json() for step in loop for one in step.results}
    assert len(rows) == 2 and not any(row.get("by_clock") for row in rows.values())


@pytest.mark.parametrize("seed", [-1, 1 << 63, 0.5, True])
def test_a_seed_out_of_range_is_refused_where_it_enters(seed: Any) -> None:
    with pytest.raises(InputError, match=r"must be a whole number from 0 to 2\*\*63 - 1, got"):
        Lanes(Speller(), ITEMS, Policy(each=Steps(5)), seed=seed)


def test_a_draw_with_a_seed_that_is_too_great_is_refused() -> None:
    with pytest.raises(InputError, match="got 9223372036854775808"):
        uniform(1 << 63, "a", 0, 0, 0)
    assert 0 <= uniform((1 << 63) - 1, "a", 0, 0, 0) < 1


def test_a_journaled_cut_by_the_clock_is_obeyed() -> None:
    stopped = Stopped(StopKind.BUDGET, "", "Seconds(1)").to_json()
    row = {"accepted": False, "stopped": stopped, "by_clock": True}
    lanes = Lanes(Speller(2), ITEMS[:3], Policy(each=Seconds(100) | Steps(5)), seed=3)
    lanes.step()
    lanes.adopt_results({"item1": row, "item2": row}.get)
    done = [one.key for step in Loop(lanes, until=Steps(1000)) for one in step.results]
    assert done == ["item0"]


def test_a_lane_in_work_can_be_edited_where_it_stands() -> None:
    lanes = Lanes(Speller(2), ITEMS[:2], Policy(each=Steps(20)), seed=3)
    lanes.step()
    lanes.change({"lane": "item0", "forbid": list("abcdefgh")})
    lanes.step()
    assert lanes.finished[0].output in {f"{letter}." for letter in "abcdefgh"}
    with pytest.raises(EditError, match="In work are: "):
        lanes.change({"lane": "item7"})


def test_a_text_remembers_its_tokens() -> None:
    text = Text("hello", (1, 2), (0, 3), (-0.1, -0.2))
    assert text == "hello" and text.tokens == (1, 2) and not text.ended
