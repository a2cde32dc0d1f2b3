"""Images that fail their checks are noised part of the way and denoised again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from unittest.mock import ANY

import pytest
import torch
from tiny_denoiser import TinyDenoiser
from torch import Tensor

from ostinato.errors import InputError
from ostinato.image import ClassifiedAs, ImageRequest, Renoise, Sharpness, denoise_loop
from ostinato.journal import Journal, StopKind, Stopped
from ostinato.loop import GiveUp, GoBack, History, StartOver

FAILED = Stopped(StopKind.FAILED, "It is blurred.", "sharp")


def classifier(images: Tensor) -> Tensor:
    """Images with a bright corner are of class 1, those with a dark one of class 0."""
    bright = images[:, :, :2, :2].mean((1, 2, 3)) * 8
    return torch.stack((-bright, bright, torch.full_like(bright, -9.0)), 1)


def test_an_image_of_another_class_fails_with_what_to_fix() -> None:
    check = ClassifiedAs(classifier=classifier, least=0.9)
    bright = torch.full((1, 8, 8), 0.8)
    assert check.judge(bright, {"label": 1}).passed
    verdict = check.judge(bright, {"label": 0})
    assert not verdict.passed
    assert verdict.message.startswith(
        "Make it look more like class 0: the classifier gives it 0.0%"
    )
    assert check.judge(bright, {}).passed
    assert (
        "from 0 to 2, the classes of the classifier, got 3"
        in check.judge(bright, {"label": 3}).error
    )


def test_sharpness_tells_edges_from_slopes() -> None:
    edge = torch.full((1, 8, 8), -1.0)
    edge[:, :, 4:] = 1.0
    slope = torch.linspace(-1, 1, 8).expand(1, 8, 8)
    assert Sharpness(least=0.5).judge(edge, {}).passed
    verdict = Sharpness(least=0.5).judge(slope, {})
    assert not verdict.passed
    assert "steepest edges span 14.3% of the range, at least 50.0%" in verdict.message
    with pytest.raises(InputError, match="'least' of the check 'sharp' must be"):
        Sharpness(least=2.0)
    with pytest.raises(InputError, match="must be an image"):
        Sharpness().judge("text", {})


def answers(strategy: Renoise, position: int, count: int) -> list[Any]:
    """Return the strategy's answers to an image that fails again and again."""
    from ostinato.loop import Attempt, Lane

    given: list[Any] = []
    attempts: list[Attempt] = []
    lane = Lane("a")
    for _ in range(count):
        history = History(position, tuple(attempts), torch.zeros(1, 8, 8), lane=lane)
        answer = strategy(FAILED, history)
        given.append(answer)
        attempts.append(
            Attempt(lane.round, lane.backtracks, position, FAILED, answer, "", (), None)
        )
        if isinstance(answer, StartOver):
            lane = Lane("a", round=lane.round + 1)
        else:
            lane = Lane("a", round=lane.round, backtracks=lane.backtracks + 1)
    return given


def test_an_image_that_fails_again_goes_back_further_and_starts_over_at_last() -> None:
    given = answers(Renoise(share=0.4, rounds=2), 10, 6)
    assert [getattr(answer, "to", type(answer)) for answer in given] == [
        6,
        2,
        StartOver,
        6,
        2,
        GiveUp,
    ]
    assert isinstance(given[0], GoBack)
    assert set(given[0].edits) == {"renoise"}


def test_a_failed_image_is_fixed_or_given_up_with_its_reason() -> None:
    check = ClassifiedAs(classifier=classifier, least=0.6)
    pictures = [ImageRequest(label=n % 2, seed=n) for n in range(8)]
    rows: list[Any] = [
        one.to_json()
        for step in denoise_loop(
            pictures, model=TinyDenoiser(), checks=[check], on_stop=Renoise(rounds=2), steps=6
        )
        for one in step.results
    ]
    assert len(rows) == 8
    mended = [row for row in rows if row["accepted"] and row["backtracks"]]
    assert mended
    assert all(check.judge(row["output"], {"label": row["index"] % 2}).passed for row in mended)
    for row in rows:
        if not row["accepted"]:
            assert row["stopped"]["sentence"].startswith(
                "All rounds are used: 2. recognized: Make it"
            )
    assert all(row["spent"]["calls"] > 6 for row in rows if row["backtracks"])


def test_an_attempt_takes_little_room_in_the_journal(tmp_path: Path) -> None:
    """The image of a `renoise` is saved with the lane's edits; the row has its shape only."""
    loop = denoise_loop(
        [ImageRequest(label=n % 2, seed=n) for n in range(4)],
        model=TinyDenoiser(),
        checks=[ClassifiedAs(classifier=classifier, least=0.99)],
        on_stop=Renoise(rounds=2),
        steps=6,
        run="hard",
        journal=Journal(tmp_path / "journal.db"),
    )
    with loop:
        rows: list[Any] = [one.to_json() for step in loop for one in step.results]
    attempts = [attempt for row in rows for attempt in row["attempts"]]
    backs = [each for each in attempts if each["answer"]["answer"] == "go back"]
    assert backs
    assert all(len(json.dumps(each)) < 1000 for each in attempts)  # an image alone: 1,300
    summary = {"shape": [1, 8, 8], "dtype": "float32"}
    assert all(each["answer"]["edits"] == {"renoise": summary} for each in backs)
    with Journal(tmp_path / "journal.db") as journal:
        run = journal.get("hard")
        assert dict(run.results()) == {row["key"]: {**row, "output": ANY} for row in rows}
        answers = [
            lane["answer"]
            for record in run.steps()
            for lane in record.report["lanes"].values()
            if lane["answer"]
        ]
    assert len(answers) == len(attempts)
    assert all(len(json.dumps(answer)) < 400 for answer in answers)


def test_without_checks_every_image_is_taken() -> None:
    with pytest.raises(InputError, match="at least one image request"):
        denoise_loop([], model=TinyDenoiser())
    rows: list[Any] = [
        one.to_json()
        for step in denoise_loop([0, 1], model=TinyDenoiser(), steps=3)
        for one in step.results
    ]
    assert [row["stopped"]["kind"] for row in rows] == ["ended", "ended"]


def test_wrong_settings_of_renoise_are_refused() -> None:
    with pytest.raises(InputError, match="share must be above 0 and at most 1, got 0"):
        Renoise(share=0)
    with pytest.raises(InputError, match="rounds must be at least 1"):
        Renoise(rounds=0)
