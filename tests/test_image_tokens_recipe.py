"""The recipe measures image token models, also untrained ones."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from ostinato.image import hold_out, read_images
from ostinato.image.tokens import (
    TUNED,
    Attributes,
    PixelQuantizer,
    image_token_loop,
    new_image_token_model,
)
from recipes import image_tokens as recipe


def test_models_are_measured_and_shown(tmp_path: Path) -> None:
    seen, held = hold_out(read_images(["digits-8x8"]).at(range(300)), 0.5)
    codec = PixelQuantizer(size=8, levels=256)
    model = new_image_token_model("unmask", codec, Attributes.of(seen), layers=1, width=16, heads=1)
    folders = {"unmask": model.save(tmp_path / "model")}
    large = (
        recipe.fitted(seen, PixelQuantizer(size=28)),
        recipe.fitted(held, PixelQuantizer(size=28)),
    )
    flat = recipe.evaluate(folders, *large, count=20, words=2, learn=60, steps=2)
    assert flat["unmask.codes.mse"] == 0.0  # 256 levels lose nothing
    assert flat["unmask.right"] < 0.5 < flat["real.right"]
    assert flat["unmask.fd"] > 1 and flat["unmask.seconds"] > 0
    assert {"unmask.slanted", "unmask.small"} <= set(flat)
    recipe.write_figures(folders, tmp_path / "figures")
    assert (tmp_path / "figures" / "image-tokens-unmask.png").stat().st_size > 1000


def test_each_word_fits_a_third_of_the_images() -> None:
    images = read_images(["digits-8x8"])
    words = Attributes.of(images)
    ids = words.describe(images)
    shares = [(ids == words.vocabulary.index(word)).any(1).float().mean() for word in recipe.WORDS]
    assert torch.allclose(torch.stack(shares), torch.tensor(1 / 3), atol=0.02)


def test_samples_come_in_the_order_of_the_prompts() -> None:
    images = read_images(["digits-8x8"]).at(range(100))
    model = new_image_token_model(
        "row", PixelQuantizer(size=8, levels=2), Attributes.of(images), layers=1, width=16, heads=1
    )
    prompts = ["two", "a thin one", "nine"]
    sampled = recipe.sampled(model, prompts, TUNED["row"], 2)
    rows = {
        one.index: one.output
        for step in image_token_loop(prompts, model=model)
        for one in step.results
    }
    assert len(sampled) == 3
    for index, image in enumerate(sampled):
        assert torch.equal(image, model.image(rows[index]))
