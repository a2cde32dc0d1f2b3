"""Anything that trains is trained by the command line, as its declaration says."""

from __future__ import annotations

import copy
import os
import shlex
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest
from click.testing import CliRunner
from toy_trainer import CHASE, Chase, ChaseConfig, ChaseRun

from ostinato.adversarial import DuelConfig
from ostinato.cli.main import cli
from ostinato.cli.train.group import TRAININGS, offer, train
from ostinato.cli.train.line import every_number, line
from ostinato.journal import Journal
from ostinato.music import Score, examples, music_model
from ostinato.runs import KINDS, RunKind
from ostinato.testing import check_process
from ostinato.train import TextTask, TrainingConfig, build_training, task_parts

TRAIN = "train chase field --steps 20 --turns 3 --checkpoint-every 4"

DIES = """
import os, signal, sys
import test_train_command as tests
from toy_trainer import Chase

step = Chase.step

def dies(chase):
    if chase.steps == 10:
        os.kill(os.getpid(), signal.SIGKILL)
    return step(chase)

Chase.step = dies
tests.declare()
tests.cli(sys.argv[1:])
"""


def declare() -> None:
    """Make the chase a command, by the two lines that any training has in the tables."""
    KINDS["train chase"] = RunKind("toy_trainer:ChaseRun", "ostinato.train:build_training")
    offer(CHASE)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    tables: list[tuple[Any, str]] = [(KINDS, "train chase"), (TRAININGS, "train chase")]
    for table, name in [*tables, (train.commands, "chase")]:
        monkeypatch.setitem(table, name, None)  # so that they are put back as they were
    declare()
    return tmp_path


def output_of(text: str) -> str:
    result = CliRunner().invoke(cli, shlex.split(text))
    assert result.exit_code == 0, (result.output, result.exception)
    return result.output


def saved(out: str) -> bytes:
    return Path(out, "chase.safetensors").read_bytes()


def test_a_chase_is_a_process() -> None:
    check_process(lambda: Chase(ChaseConfig()))


@pytest.mark.slow
@pytest.mark.parametrize("resume", ["runs resume train-cut", f"{TRAIN} --out cut"])
def test_a_trainer_of_its_own_kind_is_killed_and_resumed_to_the_same_bits(resume: str) -> None:
    whole = output_of(f"{TRAIN} --out whole")
    path = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    child = subprocess.run(
        [sys.executable, "-c", DIES, *shlex.split(f"{TRAIN} --out cut")],
        env=os.environ | {"PYTHONPATH": path},
    )
    assert child.returncode == -signal.SIGKILL and not Path("cut").exists()
    text = output_of(resume)
    assert "Resuming from step 8.\n" in text
    assert text.splitlines()[-2:] == whole.replace("whole", "cut").splitlines()[-2:]
    assert saved("cut") == saved("whole")
    with Journal() as journal:
        one, other = (list(journal.get(f"train-{name}").steps()) for name in ("cut", "whole"))
    assert [step.report for step in one] == [step.report for step in other] and len(one) == 20


def test_the_declared_line_is_shown_at_each_validation() -> None:
    text = output_of(f"{TRAIN} --out out")
    assert text.startswith("12 trainable parameters.\nstep      1  hare ")
    lines = [each for each in text.splitlines() if "lead" in each]
    assert [each.split()[1] for each in lines[:6]] == ["3", "6", "9", "12", "15", "18"]
    assert "step     20  lead " in text and "(the last step)" in text
    assert "with the best validation" in text and "It has taken 20 steps, the limit." in text


def test_the_declared_options_are_those_of_the_configuration() -> None:
    text = output_of("train chase --help")
    assert "Train a hare and a hound." in text and "chase [OPTIONS] WHERE" in text
    assert "--turns INTEGER" in text and "Moves of the hound in a step.  [default: 2]" in text
    assert "chase" in output_of("train --help")
    output_of(f"{TRAIN} --out out")
    changed = CliRunner().invoke(cli, shlex.split(f"{TRAIN} --out out --rate 0.5"))
    assert "but --rate was 0.05, is 0.5" in str(changed.exception)
    assert "--epochs must be left out of a training without examples" in str(
        CliRunner().invoke(cli, shlex.split(f"{TRAIN} --out new --epochs 2")).exception
    )


def test_what_is_never_validated_saves_the_last_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Chase, "_validate", lambda chase: {})
    text = output_of(f"{TRAIN} --out out")
    assert "These are the weights of step 20, the last: no validation gave a number." in text


def test_patience_and_the_best_weights_are_of_one_mind() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Lowest(ChaseRun):
        better: ClassVar[Any] = "min"

    with pytest.raises(TypeError, match="better must be 'max'"):
        build_training(Lowest(out=Path("out"), where=Path("field")))


def test_patience_waits_for_the_declared_measure() -> None:
    text = output_of("train chase field --out out --patience 2 --steps 400")
    assert "lead has not improved on" in text
    assert '"lead"' in output_of("runs resume train-out --until 'Steps(500)' --json")


def test_measuring_the_speed_leaves_no_trace() -> None:
    network = music_model(layers=1, width=16, heads=1).llama()
    task = TextTask(examples([Score(((67, 64, 60, 48),) * 4)]))
    parts = task_parts(network, task, save=print, hashes={}, examples=(1, 0))
    before = copy.deepcopy(network.state_dict())
    assert parts.steps_per_second(TrainingConfig(batch_tokens=64, ema_decay=0.9)) > 0
    assert all(value.equal(before[name]) for name, value in network.state_dict().items())


def test_a_line_shows_what_the_report_holds() -> None:
    shown = line("loss {loss:.2f}", "return {return:.1f}", "fd {fd:.0f}")
    assert shown({"loss": 1, "return": [12.0, 13.0], "text": "a"}) == "loss 1.00  return 12.5"
    assert shown({"return": [], "fd": 3}) == "fd 3"
    assert every_number({"a": 0.12345678, "b": [1, 2], "text": "t"}) == "a 0.1235  b 1.5"


def test_of_any_training_a_warm_up_longer_than_its_plan_is_told() -> None:
    for config in (TrainingConfig, DuelConfig):
        assert "must be at most the 4 steps" in config(steps=4, warmup_steps=9).warning()
    assert not ChaseConfig(steps=4).warning()
