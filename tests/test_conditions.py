"""Conditions: when each fires, what it says, how they compose, and that their spelling is read."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ostinato.errors import InputError
from ostinato.journal import StopKind, Stopped
from ostinato.loop import (
    AnyOf,
    Budget,
    Condition,
    Converges,
    Epochs,
    Exceeds,
    Item,
    Never,
    NoProgress,
    NotFinite,
    Passes,
    Phrase,
    Plateau,
    Predicate,
    Reaches,
    Report,
    Seconds,
    Step,
    Steps,
    Verdict,
    parse,
)
from ostinato.loop.check import PrefixVerdict, RequiredText
from ostinato.loop.conditions.base import as_condition


def fired(condition: Condition, reports: Sequence[Report]) -> tuple[int, Stopped] | None:
    """Return the tick at which a condition fires, with its stop; its state goes through JSON."""
    state = condition.initial_state()
    for tick, report in enumerate(reports, 1):
        state, stopped = condition.observe(json.loads(json.dumps(state)), Step(tick, tick, report))
        if stopped is not None:
            return tick, stopped
    return None


def losses(*values: float) -> list[Report]:
    return [{"loss": value} for value in values]


@pytest.mark.parametrize(
    ("condition", "reports", "tick", "kind"),
    [
        (Steps(3), losses(1, 1, 1, 1), 3, StopKind.BUDGET),
        (Epochs(1), [{"epoch": n / 4} for n in range(1, 9)], 4, StopKind.BUDGET),
        (Budget("tokens", 5), [{"tokens": 2}] * 4, 3, StopKind.BUDGET),
        (Reaches("loss", below=2), losses(3, 2, 1), 2, StopKind.PASSED),
        (Reaches("loss", above=2, over=2), losses(1, 2, 1, 3, 3), 4, StopKind.PASSED),
        (Exceeds("loss", above=2), losses(1, 2, 3), 3, StopKind.FAILED),
        (Exceeds("loss", below=2), losses(2, 1), 2, StopKind.FAILED),
        (Plateau("loss", patience=2), losses(3, 2, 2, 2, 2), 4, StopKind.NO_PROGRESS),
        (Plateau("loss", patience=2), losses(math.nan, 3, 2, 2, 2), 5, StopKind.NO_PROGRESS),
        (Plateau("loss", patience=2), losses(*[math.nan] * 3), 3, StopKind.NO_PROGRESS),
        (Plateau("loss", 2, 0.5, "max"), losses(1, 2, 2.4, 2.5, 9), 4, StopKind.NO_PROGRESS),
        (Converges("loss", 0.1, over=2), losses(3, 1, 1.05, 1.09), 4, StopKind.CONVERGED),
        (NotFinite(), losses(1, float("nan")), 2, StopKind.DIVERGED),
        (NotFinite("loss"), losses(float("-inf")), 1, StopKind.DIVERGED),
        (NoProgress("loss", over=3), losses(1, 1, 2, 2, 2), 5, StopKind.NO_PROGRESS),
        (NoProgress(over=2), [{"output": "a"}, {"output": "a"}], 2, StopKind.NO_PROGRESS),
        (Phrase("END"), [{"output": "an E"}, {"output": "an END"}], 2, StopKind.ENDED),
        (Predicate(lambda step: step.tick == 2), losses(1, 1), 2, StopKind.PASSED),
        (Steps(1) & Reaches("loss", below=2), losses(3, 1), 2, StopKind.PASSED),
        (Steps(9) | Reaches("loss", below=2), losses(3, 1), 2, StopKind.PASSED),
    ],
    ids=str,
)
def test_a_condition_fires_at_its_step(
    condition: Condition, reports: list[Report], tick: int, kind: StopKind
) -> None:
    result = fired(condition, reports)
    assert result is not None
    assert (result[0], result[1].kind) == (tick, kind)
    assert result[1].sentence.endswith((".", "!"))


SEVERAL = [12.0, 3.0, 3.0, 200.0, 3.0, 3.0, 3.0]


@pytest.mark.parametrize("cuts", [(2, 3), (1,), (0, 4, 6), (7,)])
@pytest.mark.parametrize("kind", [list, tuple, np.array, lambda v: np.array(v, np.float32)])
@pytest.mark.parametrize(
    "condition",
    [
        Reaches("x", above=50, over=3),
        Reaches("x", below=3, over=2),
        Exceeds("x", above=100),
        Plateau("x", patience=3, mode="max"),
        Converges("x", 0.5, over=2),
        NoProgress("x", over=3),
        Budget("x", 219),
        Epochs(12),
    ],
    ids=str,
)
def test_several_values_in_a_step_count_as_if_each_had_a_step(
    condition: Condition, kind: Callable[[list[float]], object], cuts: tuple[int, ...]
) -> None:
    name = "epoch" if isinstance(condition, Epochs) else "x"
    one_by_one = fired(condition, [{name: value} for value in SEVERAL])
    edges = [0, *cuts, len(SEVERAL)]
    parts = [SEVERAL[a:b] for a, b in itertools.pairwise(edges)]
    together = fired(condition, [{name: kind(part)} for part in parts])
    assert one_by_one is not None and together is not None
    if not isinstance(condition, Epochs | Budget):  # budgets are looked at after the step
        assert together[1] == one_by_one[1]
    assert together[0] == next(n for n, end in enumerate(edges[1:], 1) if one_by_one[0] <= end)


def test_the_state_after_several_values_has_them_all() -> None:
    condition = Reaches("x", above=100, over=2)
    state, stopped = condition.observe([], Step(1, 1, {"x": [300.0, 200.0, 1.0, 2.0]}))
    assert stopped is not None and stopped.numbers == {"x": 250.0}
    assert state == [1.0, 2.0]


@pytest.mark.parametrize(
    "value", [math.nan, [1.0, math.inf], (math.nan,), np.array([0.0, math.nan]), np.float32("nan")]
)
def test_a_number_that_is_not_finite_is_found_among_several(value: object) -> None:
    for condition in (NotFinite(), NotFinite("x")):
        result = fired(condition, [{"x": [1.0]}, {"x": value}])
        assert result is not None and result[0] == 2


@pytest.mark.parametrize("value", [[], (), np.zeros(0), ["a"], [[1.0, 2.0]], np.zeros((2, 2)), {}])
def test_a_value_without_numbers_tells_nothing(value: object) -> None:
    whole = NoProgress("x", over=3)
    for condition in (Reaches("x", below=9), Plateau("x", 1), Budget("x", 1), NotFinite(), whole):
        assert fired(condition, [{"x": value}] * 2) is None


def test_never_does_not_fire_and_reads_back() -> None:
    assert fired(Never(), losses(1, math.nan)) is None
    assert parse("Never() | Steps(2)") == Never() | Steps(2)
    result = fired(Never() | Steps(2), losses(1, 1))
    assert result is not None and result[0] == 2


@pytest.mark.parametrize(
    "condition",
    [
        Reaches("x", below=9),
        Plateau("x", 1),
        Converges("x", 9.0),
        Budget("x", 1),
        Exceeds("x", above=0),
    ],
    ids=str,
)
def test_a_name_that_is_not_in_the_report_is_passed_over(condition: Condition) -> None:
    assert fired(condition, [{"y": 1.0}, {}, {"x": "text"}]) is None


def test_the_more_telling_reason_goes_first_when_several_fire() -> None:
    both = Steps(2) | NotFinite() | Reaches("loss", below=5)
    result = fired(both, losses(9, float("inf")))
    assert result is not None and result[1].kind is StopKind.DIVERGED
    result = fired(Steps(1) | Reaches("loss", below=5), losses(1))
    assert result is not None and result[1].kind is StopKind.PASSED


def test_both_sides_are_observed_though_one_fires() -> None:
    both = Plateau("loss", patience=2) & Steps(4)
    result = fired(both, losses(1, 1, 1, 1))
    assert result is not None and result[0] == 4
    assert result[1].kind is StopKind.NO_PROGRESS
    assert set(result[1].numbers) == {"best", "last", "waited", "steps"}


def test_going_back_restores_counters_but_not_what_was_spent() -> None:
    both = Plateau("loss", 3) | (Budget("tokens", 9) | Steps(99))
    then = both.initial_state()
    now = then
    for tick in (1, 2):
        now, _ = both.observe(now, Step(tick, tick, {"loss": 1.0, "tokens": 2}))
    assert both.back(then, now) == [[None, 0], 4, None]


def test_seconds_are_spent_between_steps() -> None:
    condition = Seconds(10)
    begun = condition.initial_state()
    assert isinstance(begun, list) and begun[0] == 0.0
    last = begun[1]
    assert isinstance(last, float)
    state, stopped = condition.observe([9.9, last - 5], Step(1, 1, {}))
    assert stopped is not None and stopped.kind is StopKind.BUDGET
    assert condition.exhausted(state) is not None
    assert condition.exhausted(condition.wake([3.0, 0.0])) is None


class Short:
    name = "short"

    def judge(self, output: object, item: Item) -> Verdict:
        return Verdict(self.name, len(str(output)) < 3)

    def check_prefix(self, output: object, item: Item) -> PrefixVerdict:
        return PrefixVerdict()

    def required_text(self, output: object, item: Item) -> RequiredText | None:
        return None


def test_passes_judges_the_output_with_checks() -> None:
    result = fired(Passes(Short()), [{"output": "long"}, {}, {"output": "ok"}])
    assert result is not None and result[0] == 3
    assert str(Passes(Short())) == "Passes(short)"


@pytest.mark.parametrize(
    "text",
    [
        "Steps(1000)",
        "Steps(1000) | Plateau('loss/valid', patience=5)",
        "Reaches('reward', above=475.0, over=100)",
        "(Steps(10) | Seconds(3.5)) & Reaches('loss', below=-1)",
        "NotFinite() | Epochs(10) | Budget('tokens', 500) | Phrase('\\n\\n')",
        "Converges('change', 0.001, over=3)",
        "NoProgress(over=4)",
    ],
)
def test_a_condition_reads_back_from_its_spelling(text: str) -> None:
    condition = parse(text)
    assert parse(str(condition)) == condition


NAMES = st.sampled_from(["loss", "loss/valid"])
LEAVES = st.one_of(
    st.builds(Steps, st.integers(1, 100)),
    st.builds(Budget, NAMES, st.floats(0.1, 1e9)),
    st.builds(lambda n, b: Reaches(n, below=b), NAMES, st.floats(-9, 9)),
    st.builds(Plateau, NAMES, st.integers(1, 9), st.floats(0, 1), st.sampled_from(["min", "max"])),
)
TREES = st.recursive(
    LEAVES, lambda t: st.builds(lambda a, b, both: a & b if both else a | b, t, t, st.booleans())
)


@given(TREES)
def test_every_composition_reads_back_from_its_spelling(condition: Condition) -> None:
    assert parse(str(condition)) == condition


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("Step(3)", "Unknown condition 'Step'. Did you mean 'Steps'"),
        ("Steps(", "must be in Python's spelling"),
        ("Steps(3) + Steps(4)", r"joined by \| and &"),
        ("Steps(limit())", "must be a number or a text, got 'limit"),
        ("__import__('os').system('true')", r"joined by \| and &"),
        ("Steps(0)", "at least 1, got 0"),
        ("Steps()", r"must be written as Steps\(limit\), got: missing a required argument"),
        ("Plateau('a', patiense=3)", "Did you mean 'patience'"),
        ("Steps('a')", r"Steps\(limit\) must be a whole number, got 'a'"),
        ("Steps('3')", "got '3'. Leave out the quotes"),
        ("Reaches('x')", "either above= or below="),
        ("Plateau('x', mode='low')", "'min' or 'max', got 'low'"),
    ],
)
def test_what_is_no_condition_is_refused_and_nothing_is_evaluated(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse(text)


def test_a_callable_becomes_a_condition_and_flat_unions_stay_flat() -> None:
    condition = Steps(3) | (lambda step: "enough" if step.tick > 1 else None)
    assert isinstance(condition, AnyOf)
    assert len((condition | Seconds(1)).conditions) == 3  # type: ignore[attr-defined]
    result = fired(condition, losses(1, 1, 1))
    assert result is not None and result[1].sentence == "enough"
    with pytest.raises(InputError, match="must be a Condition or a callable, got 3"):
        as_condition(3)


def test_a_stop_goes_through_json() -> None:
    stopped = Stopped(StopKind.NO_PROGRESS, "It stands.", "Plateau('x')", {"best": 1.0})
    assert Stopped.from_json(json.loads(json.dumps(stopped.to_json()))) == stopped
    assert not stopped.good and Stopped(StopKind.ENDED, "").good


@pytest.mark.parametrize("change", [1e-6, 1.0])
def test_large_outputs_that_differ_anywhere_are_not_the_same(change: float) -> None:
    condition, state = NoProgress(over=2), NoProgress(over=2).initial_state()
    for number in range(3):
        value = np.zeros(4000)  # numpy and torch print neither the middle nor the last digits
        value[2000] = number * change
        state, stopped = condition.observe(state, Step(number, number, {"output": {"x": value}}))
        assert stopped is None
    state, stopped = condition.observe(state, Step(3, 3, {"output": {"x": value}}))
    assert stopped is not None
