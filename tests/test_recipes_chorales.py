"""The recipe that measures chorales gives figures, also for an untrained model."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))

from ostinato.music import Score, all_checks, music_model
from ostinato.refine import Resample
from ostinato.train import save_model
from recipes import chorales as recipe

PIECE = Score(((67, 64, 60, 48), (69, 65, 60, 53), (67, 62, 59, 43), (67, 64, 60, 48)))


def test_pieces_are_measured_and_judged() -> None:
    model = music_model(layers=1, width=16, heads=1)
    found = recipe.held_out_loss(model, [PIECE])
    assert found["pieces"] == 1
    assert found["nats_token"] == pytest.approx(math.log(141), rel=0.05)  # evenly
    assert found["nats_step"] == pytest.approx(found["nats_token"] * 17 / 4)
    passed = recipe.pass_rates([PIECE, Score(PIECE.chords[:1] * 6)], all_checks())
    assert passed["repeats"] == 0.5 and passed["voice_range"] == 1 and passed["all"] == 0.5
    result = recipe.compose(model, Resample(rounds=1), 2, melody="G4 A4")
    assert result["accepted"] == 0 and len(result["scores"]) == 2


def test_the_weights_that_ship_are_halves(tmp_path: Path) -> None:
    model = music_model(layers=1, width=16, heads=1)
    save_model(tmp_path / "made", model.llama(), model.tokenizer)
    target = recipe.ship(tmp_path / "made", tmp_path / "shipped")
    sizes = [(f / "model.safetensors").stat().st_size for f in (tmp_path / "made", target)]
    assert 0.4 < sizes[1] / sizes[0] < 0.7
    parts = {"train": [[[48, 60, 64, 67], [53, 60, 65, 69]] * 8]}
    (tmp_path / "a.json").write_text(json.dumps(parts))
    shape = ["--layers", "1", "--width", "16", "--heads", "1", "--steps", "2"]
    where = ["--journal", str(tmp_path / "journal.db")]
    assert (recipe.train(tmp_path / "a.json", tmp_path / "new", [*shape, *where])).is_dir()
