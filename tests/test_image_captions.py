"""Pictures for a class: words below images, large and slow films, sheets of a training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image, ImageFont
from test_unet import shaken

from ostinato.cli.main import cli
from ostinato.cli.train.image import _measured
from ostinato.errors import InputError
from ostinato.image import save_denoiser
from ostinato.image.image_work import WIDEST, require_scale
from ostinato.media import save_captioned, sheet
from ostinato.media.sheet import LETTERS, fitting


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    save_denoiser(tmp_path / "model", shaken(classes=2, names=("cat", "dog")))
    return "model"


def sample(*arguments: str) -> Result:
    return CliRunner().invoke(
        cli, ["sample", "image", *arguments, "--steps", "3"], catch_exceptions=False
    )


def pixels(path: str, frame: int = 0) -> Any:
    with Image.open(path) as image:
        image.seek(frame)
        return np.asarray(image.convert("L"))


def ink(strip: Any) -> int:
    """Return how many pixels of a strip are dark: those of its letters."""
    return int((strip < 128).sum())


SIDE = 112  # of an image of 8 pixels, enlarged


def test_each_image_has_its_class_and_seed_below(model: str) -> None:
    sample(model, "--label", "cat", "--label", "dog", "--caption", "--out", "a.png")
    shown = pixels("a.png")
    assert shown.shape == (SIDE + 8 + 12, 2 * (SIDE + 4) + 4)
    cat, dog = (shown[SIDE + 5 :, left : left + SIDE] for left in (4, SIDE + 8))
    assert ink(cat) > 20 and ink(dog) > 20 and (cat != dog).any()
    sample(model, "--label", "cat", "--caption", "--seed", "1", "--out", "b.png")
    assert (pixels("b.png")[SIDE + 5 :, 4 : SIDE + 4] != cat).any()


def test_the_letters_grow_with_the_images(model: str) -> None:
    sample(model, "--caption", "--scale", "42", "--out", "large.png")
    with Image.open("large.png") as image:
        assert image.size == (336 + 8, 336 + 8 + 24 + 2)
    sample(model, "--scale", "5", "--out", "plain.png")
    with Image.open("plain.png") as image:
        assert image.size == (40, 40)


def test_a_film_is_slow_large_and_says_which_step_it_shows(model: str) -> None:
    sample(model, "--out", "a.gif", "--caption", "--pace", "1.5", "--scale", "30")
    with Image.open("a.gif") as image:
        assert getattr(image, "n_frames", 1) == 3
        assert image.info["duration"] == 1500
        assert image.size == (240 + 8, 240 + 8 + 2 * (240 // 14 + 2))
        image.seek(2)
        assert image.info["duration"] == 3000
    words = [pixels("a.gif", frame)[240 + 5 :] for frame in range(3)]
    assert all(ink(each) > 50 for each in words)
    assert (words[0] != words[1]).any() and (words[1] != words[2]).any()
    sample(model, "--out", "b.gif", "--pace", "5")
    with Image.open("b.gif") as image:
        assert image.size == (336, 336)
        image.seek(2)
        assert image.info["duration"] == 5000  # the last step is never shorter than the others


def test_steps_and_folders_have_captions_too(model: str) -> None:
    sample(model, "--show-steps", "--caption", "--out", "steps.png")
    with Image.open("steps.png") as image:
        assert image.size == (3 * (SIDE + 4) + 4, 2 * (SIDE + 4 + 3 * 12) + 4)
    sample(model, "--count", "2", "--show-steps", "--caption", "--scale", "10", "--out", "folder")
    names = ["0000-steps.png", "0000.png", "0001-steps.png", "0001.png"]
    assert sorted(path.name for path in Path("folder").iterdir()) == names
    with Image.open("folder/0001.png") as image:
        assert image.size == (80 + 8, 80 + 8 + 12)


def test_a_finished_run_is_drawn_again_with_captions(model: str) -> None:
    sample(model, "--run", "cats", "--out", "a.png")
    again = sample(model, "--run", "cats", "--out", "b.gif", "--caption", "--pace", "2")
    assert again.exit_code == 0
    with Image.open("b.gif") as image:
        assert getattr(image, "n_frames", 1) == 3 and image.info["duration"] == 2000


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--scale", "2000"), r"--scale must be at most 1024 for 1 image of 8 pixels a side"),
        (("--count", "9", "--scale", "400"), "at most 341 for 9 images of 8 pixels"),
        (("--pace", "1"), "--out must be a .gif where there is a pace, got 'sample.png'"),
        (("--pace", "0", "--out", "a.gif"), "--pace must be from 0.02 to 60 seconds, got 0"),
        (("--pace", "nan", "--out", "a.gif"), "--pace must be a number"),
    ],
)
def test_what_cannot_be_shown_is_refused_before_any_sampling(
    model: str, arguments: tuple[str, ...], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        sample(model, *arguments)
    assert not [*Path().glob("*.png"), *Path().glob("*.gif")]


def test_the_largest_scale_is_the_one_that_fits() -> None:
    require_scale(WIDEST // 28, 28, 1)
    with pytest.raises(InputError, match="scale must be at most 1 for 4 images of 8000 pixels"):
        require_scale(2, 8000, 4)


# Sheets -------------------------------------------------------------------------------------------


def test_a_line_that_is_too_wide_is_cut() -> None:
    font = ImageFont.load_default(size=10)
    text = "a cat that sits on a very long wall in the sun"
    cut = fitting(text, 80, font)
    assert cut.endswith("…") and text.startswith(cut[:-1]) and font.getlength(cut) <= 80
    assert fitting("cat", 80, font) == "cat"
    with_long = np.asarray(sheet([[(torch.zeros(1, 8, 8), (text,))]], scale=10))
    assert with_long.shape == (100, 88)


def test_words_below_a_grid_take_the_lines_that_they_need(tmp_path: Path) -> None:
    words = ["step 1,200", "loss/train 0.2945", "loss/valid 0.3105"]
    heights = {}
    for width in (8, 80):
        path = save_captioned(torch.zeros(1, 8, width), words, tmp_path / "a.png", side=8)
        with Image.open(path) as image:
            assert image.width == width * 14
            heights[width] = image.height - SIDE - 4
        assert ink(pixels(str(path))[SIDE + 4 :]) > 100
    assert heights[8] == 3 * heights[80] == 3 * (LETTERS + 4)


def test_losses_and_the_measure_of_a_training_are_told() -> None:
    report = {
        "loss/train": 0.29451,
        "loss/valid": 0.5,
        "loss/valid_sigma_low": 1.0,
        "generator/loss": 1.25,
        "lr": 0.1,
        "distance": 2.0,
        "sample": None,
    }
    told = ["loss/train 0.2945", "loss/valid 0.5", "generator/loss 1.25", "distance 2"]
    assert list(_measured(report, "distance")) == told
