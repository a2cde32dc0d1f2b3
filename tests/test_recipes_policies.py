"""The shipped policy of CartPole-v1, and the recipe that trained it."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("gymnasium")
from PIL import Image

from recipes import policies as recipe


def test_the_shipped_policy_balances_the_pole() -> None:
    found = recipe.evaluate("cartpole", 2)
    assert found["lowest_return"] == 500
    assert found["parameters"] == 9155


def test_a_training_of_the_recipe_is_drawn(tmp_path: Path) -> None:
    recipe.train(tmp_path, ["--until", "Steps(2)", "--environments", "2", "--evaluate-every", "9"])
    points = recipe.episodes_of(tmp_path / "journal.db")
    assert len(points) > 3 and all(value >= 8 for _, value in points)
    recipe.draw_curve(points, tmp_path / "curve.png")
    with Image.open(tmp_path / "curve.png") as image:
        assert image.size == (640, 320)
        assert len(image.getcolors(640 * 320) or []) > 3  # None where there are more
