"""Conditions on duels: when each fires, and that it tells a collapse from a start."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

import pytest

from ostinato.adversarial import ModeCollapse, Overpowered
from ostinato.errors import InputError
from ostinato.journal import StopKind, Stopped
from ostinato.loop import Condition, Report, Step, parse


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


def looks(diversities: Iterable[float], duplicates: float = 0.0) -> list[Report]:
    return [{"diversity": value, "duplicates": duplicates} for value in diversities]


RISING = [0.1, 0.3, 0.5, *[0.8] * 3]  # good from the third on


def test_a_collapse_is_a_diversity_that_fell_and_stays() -> None:
    """Half of the best that three reports in a row held: 0.4."""
    condition = ModeCollapse(below=0.5, patience=3, grace=1000)
    result = fired(condition, looks([*RISING, 0.5, 0.39, 0.3, 0.2, 0.1]), every=10)
    assert result is not None and result[0] == 100
    stopped = result[1]
    assert stopped.kind is StopKind.DIVERGED and stopped.last_good == 70
    assert "have become alike: their diversity is 0.20 of the data's" in stopped.sentence
    assert "lower lr" in stopped.sentence


def test_a_collapse_is_a_share_of_near_duplicates_that_stays() -> None:
    condition = ModeCollapse(patience=3, grace=1000)
    result = fired(condition, [*looks(RISING), *looks([0.8] * 9, 0.7)], every=10)
    assert result is not None and result[0] == 90 and result[1].last_good == 60
    assert "70% of them are near duplicates" in result[1].sentence
    assert fired(condition, [*looks(RISING), *looks([0.8] * 9, 0.4)], every=10) is None


def test_the_last_good_report_is_well_within_the_bounds() -> None:
    """Before the collapse came a report that was bad, and one that was nearly."""
    reports = [*looks(RISING), *looks([0.8], 0.6), *looks([0.8], 0.45), *looks([0.8] * 3, 1.0)]
    result = fired(ModeCollapse(patience=3), reports, every=10)
    assert result is not None and result[0] == 110 and result[1].last_good == 60


def test_a_start_a_dip_and_steps_without_a_look_are_no_collapse() -> None:
    condition = ModeCollapse(patience=3, grace=1000)
    assert fired(condition, looks([0.1] * 50, 1.0), every=10) is None
    first_noise = [0.1, 0.9, 0.9, *[0.1] * 9, *[0.9] * 9]
    assert fired(condition, looks(first_noise), every=10) is None
    assert fired(condition, looks([*[0.6] * 3, 0.2, 0.2] * 9), every=10) is None
    looked = [*looks([0.6] * 3 + [0.2]), *of("loss", [1.0] * 9)]
    assert fired(condition, looked) is None


def test_a_diversity_that_only_fell_was_the_noise_of_first_weights() -> None:
    condition = ModeCollapse(patience=3, grace=1000)
    noise = [1.05, 0.95, 0.86, 0.73, 0.6, 0.5, 0.45, 0.41, 0.36, 0.35, 0.33, 0.32, 0.32]
    assert fired(condition, looks([*noise, 0.36, 0.45, 0.6, 0.7, 0.7])) is None
    result = fired(condition, looks([*noise, *[0.7] * 3, 0.35, 0.35, 0.35]))
    assert result is not None and result[0] == len(noise) + 6


def test_more_diversity_than_the_data_has_raises_no_bound() -> None:
    assert fired(ModeCollapse(patience=3), looks([*[3.0] * 9, *[0.61] * 99]), every=10) is None


def test_samples_that_were_alike_from_the_start_are_a_collapse_after_the_grace() -> None:
    result = fired(ModeCollapse(patience=2, grace=100), looks([0.1] * 50), every=10)
    assert result is not None and result[0] == 100 and result[1].last_good == 0
    assert "have been alike since the start" in result[1].sentence


@pytest.mark.parametrize("condition", [ModeCollapse(), Overpowered()])
def test_the_state_of_an_older_version_starts_again(condition: Condition) -> None:
    report: Report = {"diversity": 0.1, "accuracy": 0.5}
    assert condition.last_good([0, 1]) is None
    state, stopped = condition.observe([0, 4], Step(900, 900, report))
    again, _ = condition.observe(condition.initial_state(), Step(900, 900, report))
    assert stopped is None and state == again


def test_the_position_before_a_row_of_wins_is_known_while_it_lasts() -> None:
    condition, state, known = Overpowered(patience=4), Overpowered().initial_state(), []
    for position, accuracy in enumerate([0.9, 1.0, 1.0, 0.0, 0.0, 0.9, 1.0, 1.0, 1.0, 1.0], 1):
        report: Report = {"accuracy": accuracy}
        state, stopped = condition.observe(state, Step(position, position, report))
        known.append(condition.last_good(state))
    assert known == [None, 1, 1, 3, 3, None, 6, 6, 6, 6]
    assert stopped is not None and stopped.last_good == 6


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


def test_a_generator_that_catches_up_is_not_overpowered() -> None:
    """Every step is won, but the scores come closer: halved in 50 steps, again and again."""

    def won(gap: float) -> Report:
        return {"accuracy": 1.0, "score/real": gap, "score/generated": -gap}

    condition = Overpowered(patience=60)
    assert fired(condition, [won(0.5 ** (n / 50)) for n in range(500)]) is None
    result = fired(condition, [won(1.0)] * 500)
    assert result is not None and result[0] == 60


def test_images_are_known_by_heart_after_five_reports() -> None:
    condition = Overpowered(memorized=0.8)
    assert fired(condition, of("overfitting", [0.9, 0.9, 0.9, 0.9, 0.7] * 9)) is None
    result = fired(condition, of("overfitting", [0.1, *[0.85] * 5]))
    assert result is not None and result[0] == 6
    assert "by heart" in result[1].sentence and "augment" in result[1].sentence
    assert result[1].last_good == 1


def test_both_are_read_from_their_spelling() -> None:
    text = "ModeCollapse(0.4, patience=4) | Overpowered(memorized=0.7)"
    assert parse(text) == ModeCollapse(0.4, patience=4) | Overpowered(memorized=0.7)
    assert str(parse(text)) == text


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ModeCollapse(below=0.0), r"ModeCollapse\(below\) must be in \(0, 1\], got 0"),
        (lambda: ModeCollapse(duplicates=2.0), r"ModeCollapse\(duplicates\) must be in \(0, 1\]"),
        (lambda: ModeCollapse(patience=0), r"ModeCollapse\(patience\) must be at least 1"),
        (lambda: Overpowered(above=0.5), r"Overpowered\(above\) must be in \(0.5, 1\], got 0.5"),
        (lambda: Overpowered(memorized=0.0), r"Overpowered\(memorized\) must be above 0"),
    ],
)
def test_wrong_bounds_are_refused(make: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        make()
