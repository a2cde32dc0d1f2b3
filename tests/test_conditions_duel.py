"""Conditions on duels: when each fires, and that it tells a collapse from a start."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

import pytest

from ostinato.errors import InputError
from ostinato.journal import StopKind, Stopped
from ostinato.loop import Condition, ModeCollapse, Overpowered, Report, Step, parse


def fired(
    condition: Condition, reports: Sequence[Report], every: int = 1
) -> tuple[int, Stopped] | None:
    """Return the step at which a condition fires, with its stop; its state goes through JSON."""
    state = condition.initial_state()
    for position, report in enumerate(reports, 1):
        step = Step(position * every, position * every, report)
        state, stopped = condition.observe(json.loads(json.dumps(state)), step)
        if stopped is not None:
            return position * every, stopped
    return None


def of(name: str, values: Iterable[float]) -> list[Report]:
    return [{name: value} for value in values]


def test_a_collapse_is_a_diversity_that_fell_and_stays() -> None:
    condition = ModeCollapse(below=0.5, patience=3, grace=1000)
    result = fired(condition, of("diversity", [0.1, *[0.6] * 3, 0.4, 0.3, 0.2, 0.1]), every=10)
    assert result is not None and result[0] == 70
    assert result[1].kind is StopKind.DIVERGED
    assert "fell below 0.5 of the data's in 3 reports: 0.20" in result[1].sentence
    assert "lower lr" in result[1].sentence


def test_a_start_a_dip_and_steps_without_a_look_are_no_collapse() -> None:
    condition = ModeCollapse(below=0.5, patience=3, grace=1000)
    assert fired(condition, of("diversity", [0.1] * 50), every=10) is None
    first_noise = [0.1, 0.6, 0.6, *[0.1] * 9, *[0.6] * 9]
    assert fired(condition, of("diversity", first_noise), every=10) is None
    assert fired(condition, of("diversity", [*[0.6] * 3, 0.4, 0.4] * 9), every=10) is None
    looked = [*of("diversity", [0.6] * 3 + [0.4]), *[{"loss": 1.0}] * 9]
    assert fired(condition, looked) is None


def test_a_diversity_that_never_rose_is_a_collapse_after_the_grace() -> None:
    result = fired(ModeCollapse(0.5, patience=2, grace=100), of("diversity", [0.1] * 50), every=10)
    assert result is not None and result[0] == 110 and "stayed below" in result[1].sentence


@pytest.mark.parametrize(
    ("accuracies", "step", "words"),
    [
        (
            [0.9, *[1.0] * 3, 0.9, *[0.99] * 4],
            9,
            "discriminator has won 4 steps in a row: it tells",
        ),
        ([0.0] * 4, 4, "generator has won 4 steps in a row"),
        ([1.0, 1.0, 0.0, 0.0, 1.0, 1.0], None, ""),
        ([0.97] * 9, None, ""),
    ],
)
def test_one_side_wins_where_it_won_every_step(
    accuracies: list[float], step: int | None, words: str
) -> None:
    result = fired(Overpowered(patience=4), of("accuracy", accuracies))
    assert (result and result[0]) == step
    if result is not None:
        assert result[1].kind is StopKind.DIVERGED and words in result[1].sentence


def test_images_are_known_by_heart_after_five_reports() -> None:
    condition = Overpowered(memorized=0.8)
    assert fired(condition, of("overfitting", [0.9, 0.9, 0.9, 0.9, 0.7] * 9)) is None
    result = fired(condition, of("overfitting", [0.1, *[0.85] * 5]))
    assert result is not None and result[0] == 6
    assert "by heart" in result[1].sentence and "augment" in result[1].sentence


def test_both_are_read_from_their_spelling() -> None:
    text = "ModeCollapse(0.4, patience=4) | Overpowered(memorized=0.7)"
    assert parse(text) == ModeCollapse(0.4, patience=4) | Overpowered(memorized=0.7)
    assert str(parse(text)) == text


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ModeCollapse(below=0.0), r"ModeCollapse\(below\) must be in \(0, 1\], got 0"),
        (lambda: ModeCollapse(patience=0), r"ModeCollapse\(patience\) must be at least 1"),
        (lambda: Overpowered(above=0.5), r"Overpowered\(above\) must be in \(0.5, 1\], got 0.5"),
        (lambda: Overpowered(memorized=0.0), r"Overpowered\(memorized\) must be above 0"),
    ],
)
def test_wrong_bounds_are_refused(make: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        make()
