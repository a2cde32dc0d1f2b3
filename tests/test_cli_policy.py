"""`ostinato train policy` and `ostinato play`: the same command resumes, and a film is written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

pytest.importorskip("gymnasium")
from PIL import Image

from ostinato.cli.main import cli
from ostinato.journal import Journal
from ostinato.reward.games import load_policy, recipe_for

TINY = ["--environments", "2", "--rollout", "8", "--minibatch-size", "16", "--width", "8"]
SHORT = [*TINY, "--evaluate-every", "2", "--evaluation-episodes", "1", "--checkpoint-every", "2"]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*arguments: str, code: int = 0) -> Result:
    result = CliRunner().invoke(cli, arguments)
    assert result.exit_code == code, (result.output, result.exception)
    return result


def train(*arguments: str, code: int = 0) -> Result:
    return run("train", "policy", "CartPole-v1", "--out", "cart", *SHORT, *arguments, code=code)


def test_a_policy_is_trained_resumed_and_plays(folder: Path) -> None:
    first = train("--until", "Steps(3)")
    assert "2 environments, 16 steps in a rollout" in first.output
    assert "return/valid" not in first.output and "valid" in first.output
    assert load_policy("cart").shape.game == "CartPole-v1"
    longer = train("--until", "Steps(5)")
    assert "Resuming from step 3." in longer.output
    assert "with the best validation" in longer.output
    with Journal(folder / ".ostinato/journal.db") as journal:
        (trained,) = journal.runs()
        ticks = [step.tick for step in trained.steps()]
        assert ticks == [1, 2, 3, 4, 5]
    shown = run("play", "train-cart", "--episodes", "2", "--gif", "film.gif", "--run", "game")
    assert "Mean return" in shown.output
    with Image.open("film.gif") as film:
        assert film.size == (300, 200) and getattr(film, "n_frames", 0) > 2
    with Journal(folder / ".ostinato/journal.db") as journal:
        game = journal.find("game")
        assert game is not None
        total = sum(1 for _ in game.steps())
        assert len(list(game.artifacts())) in range(2, total + 1)
    again = run("play", "cart", "--episodes", "2", "--json", "--no-journal")
    returns = json.loads(again.stdout)["returns"]
    assert sum(returns) == total


def test_an_environment_without_a_recipe_gets_that_of_its_kind() -> None:
    recipe = recipe_for("Acrobot-v1")
    assert recipe.normalize and recipe.solved == -100
    assert recipe_for("CartPole-v1").solved == 475
    assert recipe_for("Pendulum-v1").solved == -200
    assert recipe_for("MountainCarContinuous-v0").training.scale_rewards


def test_bad_input_is_told_before_anything_is_recorded(folder: Path) -> None:
    unknown = run("train", "policy", "NoGame-v0", "--out", "x", code=1)
    assert "The environment NoGame-v0 cannot be made" in str(unknown.exception)
    missing = run("play", "nowhere", code=1)
    assert "A policy must be a folder of `ostinato train policy`" in str(missing.exception)
    assert not list(folder.iterdir())
