"""A posterior collapse: when it is told, that a healthy training is none, and what is done."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from PIL import Image
from test_vae import bars, training

from ostinato.cli.main import cli
from ostinato.errors import InputError
from ostinato.image.vae import PosteriorCollapse, VaeTask, rescue
from ostinato.journal import Journal, StopKind, Stopped
from ostinato.loop import CheckpointSchedule, Condition, Loop, Step, Steps, parse

QUICK = PosteriorCollapse(patience=10, grace=30)


def fired(
    condition: Condition, reports: Sequence[Mapping[str, float]], back: int = 0
) -> tuple[int, Stopped] | None:
    """Return the position at which a condition fires; its state goes through JSON.

    The loop goes back by one step after the first `back` of them.
    """
    state = condition.initial_state()
    for tick, report in enumerate(reports, 1):
        position = tick if not back or tick <= back else tick - 1
        saved = json.loads(json.dumps(state))
        state, stopped = condition.observe(saved, Step(tick, position, report))
        if stopped is not None:
            return position, stopped
    return None


def of(*values: float) -> list[Mapping[str, float]]:
    return [{"kl": value} for value in values]


def test_points_that_told_something_and_then_nothing_have_collapsed() -> None:
    result = fired(PosteriorCollapse(patience=4, grace=100), of(*[3.0] * 5, *[0.01] * 9))
    assert result is not None and result[0] == 9
    assert result[1].kind is StopKind.DIVERGED
    assert "for 4 steps the points told nearly nothing of their images (0.01 nats)" in str(
        result[1].sentence
    )
    assert "Lower beta, give free_bits such as 0.1" in result[1].sentence
    assert result[1].last_good == 5  # the loop goes back to a checkpoint from before


def test_a_start_a_dip_and_steps_without_a_value_are_no_collapse() -> None:
    condition = PosteriorCollapse(patience=4, grace=100)
    assert fired(condition, of(*[0.01] * 99)) is None
    assert fired(condition, of(*([3.0] * 4 + [0.01] * 3) * 9)) is None
    assert fired(condition, [*of(*[3.0] * 5), *[{"loss/train": 1.0}] * 50]) is None


def test_points_that_never_told_anything_have_collapsed_after_the_grace() -> None:
    result = fired(PosteriorCollapse(patience=4, grace=20), of(*[0.01] * 50))
    assert result is not None and result[0] == 23


def test_where_points_never_told_anything_the_loop_goes_back_to_the_start() -> None:
    result = fired(PosteriorCollapse(patience=4, grace=10), of(*[0.01] * 20))
    assert result is not None and result[1].last_good == 0


def test_without_an_active_unit_the_divergence_tells_nothing() -> None:
    silent = [*of(*[3.0] * 5), {"kl": 3.0, "active_units": 0}, *of(*[3.0] * 9)]
    result = fired(PosteriorCollapse(patience=4, grace=100), silent)
    assert result is not None and result[0] == 9
    assert "of which 0 units depend on it" in result[1].sentence
    assert result[1].numbers["active_units"] == 0
    some = [*of(*[3.0] * 5), {"kl": 3.0, "active_units": 2}, *of(*[3.0] * 9)]
    assert fired(PosteriorCollapse(patience=4, grace=100), some) is None


def test_after_going_back_steps_are_counted_anew() -> None:
    reports = of(*[3.0] * 5, *[0.01] * 20)
    result = fired(PosteriorCollapse(patience=4, grace=100), reports, back=8)
    assert result is not None and result[0] == 11  # steps 8 to 11


def test_it_is_read_as_it_is_spelled_and_refuses_wrong_values() -> None:
    condition = PosteriorCollapse(0.2, patience=9)
    assert parse(str(condition)) == condition == parse("PosteriorCollapse(0.2, patience=9)")
    for wrong, told in (({"below": 0.0}, "below"), ({"patience": 0}, "patience")):
        with pytest.raises(InputError, match=rf"PosteriorCollapse\({told}\) must be"):
            PosteriorCollapse(**wrong)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("optimizer", "lr"), [("adamw", 0.005), ("muon", 0.02)])
def test_a_planted_collapse_is_told_and_a_healthy_training_is_not_stopped(
    optimizer: str, lr: float, seed: int
) -> None:
    plan: dict[str, Any] = {"optimizer": optimizer, "lr": lr, "seed": seed}
    healthy = Loop(training(**plan), until=Steps(80) | QUICK).run()
    assert healthy.kind is StopKind.BUDGET, healthy
    planted = Loop(training(beta=2000.0, **plan), until=Steps(80) | QUICK).run()
    assert planted.kind is StopKind.DIVERGED and "has collapsed" in planted.sentence


def test_a_collapsed_training_goes_back_and_ends_healthy() -> None:
    process = training(beta=500.0, steps=240, valid_every=240)
    loop = Loop(
        process,
        # Units take some steps to become active again.
        until=Steps(240) | PosteriorCollapse(patience=30, grace=40),
        on_stop=rescue(3),
        checkpoint=CheckpointSchedule(steps=20),
    )
    stopped = loop.run()
    assert stopped.kind is StopKind.BUDGET, stopped
    assert isinstance(process.task, VaeTask) and process.task.beta < 500
    assert process.validate()["active_units"] >= 1


def test_a_command_goes_back_by_itself_and_its_run_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bars").mkdir()
    for n, pixels in enumerate(bars().pixels):
        Image.fromarray(pixels[0].numpy()).save(tmp_path / "bars" / f"{n}.png")
    impatient = partial(PosteriorCollapse, patience=5, grace=20)
    monkeypatch.setattr("ostinato.image.vae.training_run.PosteriorCollapse", impatient)
    command = (
        "train vae bars --out made --width 16 --latent 4 --batch-size 16 --beta 1000000 --lr 0.005 "
        "--sample-every 0 --steps 40 --valid-every 20 --checkpoint-every 10 --rescues 1"
    )
    made = CliRunner().invoke(cli, shlex.split(command))
    assert "has collapsed" in made.output, made.output
    with Journal() as journal:
        stops = [e.data for e in journal.get("train-made").events() if "stopped" in e.data]
    answer = stops[0]["answer"]
    assert answer["answer"] == "go back" and "has collapsed" in answer["reason"]
    assert answer["edits"] == {"beta_scale": 0.25, "free_bits": 0.1}
