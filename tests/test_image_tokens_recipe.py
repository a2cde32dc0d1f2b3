"""The recipe that measures drawings gives figures, also of ones that have learned nothing."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from ostinato.image import hold_out, read_images
from ostinato.image.tokens import (
    Attributes,
    PixelQuantizer,
    image_token_loop,
    new_image_token_model,
)
from ostinato.image.tokens.model import TUNED
from recipes import image_tokens as recipe


def test_drawings_are_measured_and_shown(tmp_path: Path) -> None:
    seen, held = hold_out(read_images(["digits"]).at(range(300)), 0.5)
    codec = PixelQuantizer(size=8, levels=256)
    made = new_image_token_model("unmask", codec, Attributes.of(seen), layers=1, width=16, heads=1)
    folders = {"unmask": made.save(tmp_path / "made")}
    large = (
        recipe.fitted(seen, PixelQuantizer(size=28)),
        recipe.fitted(held, PixelQuantizer(size=28)),
    )
    flat = recipe.evaluate(folders, *large, count=20, words=2, learn=60, steps=2)
    assert flat["unmask.codes.mse"] == 0.0  # 256 levels lose nothing
    assert flat["unmask.right"] < 0.5 < flat["real.right"]
    assert flat["unmask.fd"] > 1 and flat["unmask.seconds"] > 0
    assert {"unmask.slanted", "unmask.small"} <= set(flat)
    recipe.write_pictures(folders, tmp_path / "pictures")
    assert (tmp_path / "pictures" / "drawing-unmask.png").stat().st_size > 1000


def test_words_are_found_true_of_images_that_have_them() -> None:
    images = read_images(["digits"])
    words = Attributes.of(images)
    ids = words.describe(images)
    shares = [(ids == words.vocabulary.index(word)).any(1).float().mean() for word in recipe.SAID]
    assert torch.allclose(torch.stack(shares), torch.tensor(1 / 3), atol=0.02)


def test_what_is_drawn_comes_in_the_order_of_the_wishes() -> None:
    images = read_images(["digits"]).at(range(100))
    made = new_image_token_model(
        "row", PixelQuantizer(size=8, levels=2), Attributes.of(images), layers=1, width=16, heads=1
    )
    wishes = ["two", "a thin one", "nine"]
    drawn = recipe.drawn(made, wishes, TUNED["row"], 2)
    rows = {
        row["index"]: row["output"]
        for step in image_token_loop(wishes, model=made)
        for _, row in step.results
    }
    assert len(drawn) == 3
    for index, image in enumerate(drawn):
        assert torch.equal(image, made.picture(rows[index]))
