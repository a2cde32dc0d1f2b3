"""The numbers of progress: how much is done, what fails, and how long the rest takes."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from typing import Any

import pytest

from ostinato.journal import StopKind, Stopped
from ostinato.loop import (
    Attempt,
    Budget,
    Epochs,
    GiveUp,
    LaneResult,
    Loop,
    Seconds,
    Step,
    Steps,
    Verdict,
)
from ostinato.refine.progress_tally import ProgressTally, StepTally


def made_up(kind: str, steps: int, seed: int) -> list[float]:
    """Return the seconds that each step of an uneven work takes."""
    rng = random.Random(seed)
    took = [rng.lognormvariate(0, 0.5) for _ in range(steps)]
    for n in range(steps):
        if kind == "validations" and n % (steps // 20) == 0:
            took[n] += 8
        if kind == "slower" and n > steps / 2:
            took[n] *= 1.6
        if kind == "faster" and n > steps / 2:
            took[n] /= 1.6
    if kind == "compiles":
        took[0] += steps / 4
    return took


def estimates(took: Sequence[float], began: int, steps: int) -> list[tuple[float, float]]:
    """Return (share of this session, estimate / real time left) of a loop resumed at `began`."""
    loop = Loop(lambda: {"x": 1.0}, until=Steps(steps))
    tally, now, found = StepTally(loop), 0.0, []
    tally.start(now)
    ends = sum(took[began:])
    for n in range(began, steps - 1):
        now += took[n]
        loop.tick = n + 1
        tally.add_step(Step(n + 1, n + 1, {"x": 1.0}), now)
        if (left := tally.left(now)) is not None:
            found.append(((n + 1 - began) / (steps - began), left / (ends - now)))
    return found


@pytest.mark.parametrize("kind", ["even", "validations", "slower", "faster", "compiles"])
@pytest.mark.parametrize("began", [0, 300, 700])
def test_a_training_s_time_left_is_right_within_a_factor_of_two(kind: str, began: int) -> None:
    for steps, seed in ((1000, 1), (1000, 2), (4000, 3)):
        found = estimates(made_up(kind, steps, seed), began, steps)
        late = [ratio for share, ratio in found if 0.1 <= share <= 0.97]
        assert late and all(0.5 <= ratio <= 2 for ratio in late), (min(late), max(late))


@pytest.mark.parametrize(
    ("condition", "state", "report", "share"),
    [
        (Steps(40), None, {}, 0.25),
        (Epochs(4), None, {"epoch": 1.0}, 0.25),
        (Epochs(4), None, {}, None),
        (Seconds(60), [15.0, 0.0], {}, 0.25),
        (Budget("tokens", 100), 25, {}, 0.25),
        (Steps(40) | Epochs(2), [None, None], {"epoch": 1.0}, 0.5),
        (Steps(40) & Epochs(2), [None, None], {"epoch": 1.0}, 0.25),
        (Steps(40) & Epochs(2), [None, None], {}, None),
        (Steps(40) | Epochs(2), [None, None], {}, 0.25),
        (Steps(5), None, {}, 1.0),
    ],
)
def test_a_condition_says_how_much_of_its_limit_is_used(
    condition: Any, state: Any, report: dict[str, Any], share: float | None
) -> None:
    assert condition.share(state, Step(10, 10, report)) == share


def test_no_time_is_told_where_a_loop_has_no_limit() -> None:
    tally = StepTally(Loop(lambda: {"tokens": 500}))
    tally.start(0.0)
    for n in range(1, 9):
        tally.loop.tick = n
        tally.add_step(Step(n, n, {"tokens": 500}), float(n))
    assert tally.left(8.0) is None
    assert tally.line(8.0) == "step 8, 500 tokens/s"


def test_a_line_of_steps_ends_without_time_left() -> None:
    loop = Loop(lambda: {"x": 1.0}, until=Steps(8))
    tally = StepTally(loop)
    tally.start(0.0)
    lines = []
    for n in range(1, 9):
        loop.tick = n
        tally.add_step(Step(n, n, {"x": 1.0}), float(n))
        lines.append(tally.line(float(n)))
    assert lines[3] == "step 4 of 8, about 5 s left, 1 step/s"
    assert lines[-1] == "step 8 of 8, 1 step/s"
    assert tally.numbers(8.0)["seconds_left"] is None and tally.numbers(8.0)["steps"] == 8


def result(key: str, check: str = "", *, accepted: bool = True) -> LaneResult:
    failed = Stopped(StopKind.FAILED, "It failed.", check)
    verdicts = (Verdict(check, False, 0.0, "Fix it."),) if check else ()
    attempts = (Attempt(0, 0, 9, failed, GiveUp(), "", verdicts),) if check else ()
    stopped = Stopped(StopKind.PASSED, "") if accepted else failed
    return LaneResult(
        key=key, index=0, output="", accepted=accepted, stopped=stopped, attempts=attempts,
        spent={"computed": 30},
    )  # fmt: skip


def test_a_line_names_the_rate_the_time_and_what_fails_most() -> None:
    tally = ProgressTally(10)
    tally.start(100.0)
    for n, check in enumerate(("length", "", "length", "tone")):
        tally.add(result(str(n), check, accepted=n != 3))
    assert tally.line(160.0) == (
        "4 of 10 done, 3 accepted (75%), about 1 min 30 s left, 4 items/min, "
        "length fails most (2), 120 tokens, 2 tokens/s"
    )
    numbers = tally.numbers(160.0)
    assert numbers["fails_most"] == "length" and numbers["failed_drafts"] == 2
    assert numbers["seconds_left"] == pytest.approx(97.5) and numbers["tokens_per_second"] == 2


def test_the_time_left_counts_what_this_session_has_done() -> None:
    """A run that took hours before a pause, and is faster now."""
    tally = ProgressTally(1000)
    for n in range(900):
        tally.add(result(str(n)))
    tally.before = tally.earlier = tally.done
    tally.start(50_000.0)
    assert tally.left(50_000.0) is None
    for n in range(900, 910):
        tally.add(result(str(n)))
    left = tally.left(50_010.0)
    assert left is not None and 45 < left < 180  # 90 items at one a second


def test_most_jobs_are_estimated_within_a_factor_of_two_after_a_tenth() -> None:
    from test_cli_refine import progress_of_made_up

    ratios = []
    for items in (60, 200, 1000):
        for spread in (0.2, 0.4, 0.7):
            for seed in range(8):
                found = progress_of_made_up(items, spread, seed)
                ratios.append(next(ratio for share, ratio in found if share >= 0.1))
    within = sum(abs(math.log(ratio)) <= math.log(2) for ratio in ratios) / len(ratios)
    assert within >= 0.85
