"""The policy of the mini-game that ships is as strong as its card says; it can be filmed."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("gymnasium")

from PIL import Image

from recipes.minigame import evaluate, film


def test_the_shipped_policy_is_stronger_than_greedy() -> None:
    means = evaluate("river", 6)
    assert means["random.return"] < 0 < means["greedy.return"]
    assert means["policy.return"] > means["greedy.return"] + 5
    assert means["policy.return"] < means["planner.return"]


def test_a_film_shows_both_games_side_by_side(tmp_path: Path) -> None:
    path = film("river", "left", 5, tmp_path / "film.gif")
    with Image.open(path) as opened:
        assert opened.size == (2 * 264 + 8, 264)
        assert getattr(opened, "n_frames", 1) > 10
