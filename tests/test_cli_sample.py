"""`ostinato sample image`, as a user types it."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Mapping
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from PIL import Image
from test_unet import shaken

from ostinato.cli.main import cli
from ostinato.errors import OstinatoError
from ostinato.image import Classifier, ClassifierConfig, Denoise, save_classifier, save_denoiser
from ostinato.image.sampling_run import read_mask
from ostinato.loop import Report


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    save_denoiser(tmp_path / "model", shaken(classes=2, names=("cat", "dog")))
    return "model"


def sample(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["sample", "image", *arguments], catch_exceptions=False)


def test_images_are_written_and_the_reason_printed(model: str) -> None:
    result = sample(model, "--label", "dog", "--count", "3", "--steps", "4")
    assert result.exit_code == 0
    assert "3 of 3: All 4 noise levels are done." in result.output
    assert "Wrote sample.png (12 calls of the network)." in result.output
    with Image.open("sample.png") as image:
        assert image.size == (2 * 112 + 14, 2 * 112 + 14)  # a gutter between
    assert "Wrote sample-2.png" in sample(model, "--steps", "2").output


def test_steps_are_shown_noisy_above_clean(model: str) -> None:
    sample(model, "--show-steps", "--steps", "5", "--out", "strip.png")
    with Image.open("strip.png") as image:
        assert image.size == (5 * (112 + 4) + 4, 2 * (112 + 4 + 2 * 12) + 4)  # two lines under each
    sample(model, "--show-steps", "--steps", "30", "--out", "long.png")
    with Image.open("long.png") as image:
        assert image.width == 10 * (112 + 4) + 4  # the first, the last, and some between


def test_a_resumed_run_draws_its_steps_again(model: str) -> None:
    sample(model, "--steps", "4", "--show-steps", "--run", "shown", "--out", "shown.png")
    before = Path("shown.png").read_bytes()
    assert CliRunner().invoke(cli, ["runs", "resume", "shown"]).exit_code == 0
    assert Path("shown.png").read_bytes() == before


def test_a_gif_shows_every_step_and_a_folder_every_image(model: str) -> None:
    sample(model, "--steps", "3", "--out", "a.gif")
    with Image.open("a.gif") as image:
        assert getattr(image, "n_frames", 1) == 3
        assert image.size == (336, 336) and image.info["duration"] == 300
        image.seek(2)
        assert image.info["duration"] == 3000
    sample(model, "--count", "2", "--steps", "2", "--out", "folder")
    assert sorted(path.name for path in Path("folder").iterdir()) == ["0000.png", "0001.png"]
    sample(model, "--steps", "2", "--show-steps", "--out", "shown")
    assert sorted(path.name for path in Path("shown").iterdir()) == ["0000-steps.png", "0000.png"]
    with Image.open("shown/0000-steps.png") as image:
        assert image.size == (2 * (112 + 4) + 4, 2 * (112 + 4 + 2 * 12) + 4)


def test_an_image_is_varied_and_painted_into(model: str) -> None:
    sample(model, "--steps", "2", "--out", "start.png")
    varied = sample(model, "--from", "start.png", "--strength", "0.5", "--steps", "4", "--json")
    assert json.loads(varied.stdout)["images"][0]["steps"] == 2
    Image.new("L", (8, 8), 255).save("mask.png")
    painted = sample(model, "--from", "start.png", "--mask", "mask.png", "--steps", "4", "--json")
    assert json.loads(painted.stdout)["images"][0]["steps"] == 4


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparent_parts_of_a_mask_are_kept(model: str, mode: str) -> None:
    mask = Image.new(mode, (8, 8), (255,) * len(mode))
    mask.paste((255,) * (len(mode) - 1) + (0,), (4, 0, 8, 8))
    mask.save("mask.png")
    assert read_mask(Path("mask.png"), 8).tolist() == [[1.0] * 4 + [0.0] * 4] * 8


def test_an_image_that_converges_ends_early(model: str) -> None:
    result = sample(model, "--each", "Converges('change', 10, over=2)", "--steps", "30", "--json")
    row = json.loads(result.stdout)["images"][0]
    assert row["stopped"]["kind"] == "converged"
    assert row["steps"] < 30


def test_a_shipped_digit_is_drawn_until_the_shipped_classifier_is_sure(model: str) -> None:
    arguments = ("--label", "7", "--count", "2", "--steps", "8", "--json")
    both = [
        json.loads(sample(*arguments, *more).stdout)["images"]
        for more in (
            ("--until-passes",),
            ("--min-class-probability", "0.9", "--classifier", "digits"),
        )
    ]
    assert both[0] == both[1]
    for image in both[0]:
        assert image["accepted"] and image["stopped"]["kind"] == "passed"
    hard = sample(
        "--label", "7", "--min-class-probability", "1", "--rounds", "1", "--steps", "4", "--json"
    )
    (image,) = json.loads(hard.stdout)["images"]
    assert not image["accepted"] and image["calls"] > 4
    assert "recognized: Make it look more like class 7" in image["stopped"]["sentence"]
    assert image["stopped"]["sentence"].startswith("All rounds are used: 1.")


def test_until_passes_keeps_to_the_checks_that_are_given(model: str) -> None:
    result = sample(model, "--until-passes", "--min-sharpness", "0.01", "--steps", "4", "--json")
    assert json.loads(result.stdout)["images"][0]["accepted"]


def test_another_classifier_reads_other_classes(model: str) -> None:
    shape = ClassifierConfig(names=("cat", "dog"), size=8, widths=(4,))
    save_classifier("pets", Classifier(shape))
    arguments = (
        model,
        "--min-class-probability",
        "0.1",
        "--classifier",
        "pets",
        "--steps",
        "3",
        "--json",
    )
    assert json.loads(sample(*arguments, "--label", "dog").stdout)["images"][0]["accepted"]


def test_a_run_that_is_finished_shows_its_images_again(model: str) -> None:
    arguments = (model, "--count", "2", "--steps", "3", "--run", "pets", "--show-steps")
    sample(*arguments, "--out", "a.png")
    again = sample(*arguments, "--out", "b.png")
    assert again.exit_code == 0
    assert Path("a.png").read_bytes() == Path("b.png").read_bytes()


@pytest.fixture
def color(model: str, tmp_path: Path) -> str:
    """Return a model of 64 x 64 in color: its tensors are too large for lists of numbers."""
    save_denoiser(tmp_path / "color", shaken(channels=3, size=64))
    return "color"


@pytest.mark.parametrize(
    ("out", "more"),
    [
        (".png", ()),
        pytest.param(".png", ("--show-steps",), marks=pytest.mark.slow),
        pytest.param(".gif", (), marks=pytest.mark.slow),
    ],
)
def test_a_run_that_is_interrupted_resumes_with_the_same_images(
    color: str, out: str, more: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = (color, "--count", "2", "--steps", "5", *more)
    assert sample(*arguments, "--out", f"whole{out}").exit_code == 0
    step, taken = Denoise.step, 0

    def interrupted(process: Denoise) -> Mapping[str, Report]:
        nonlocal taken
        taken += 1
        if taken == 3:
            os.kill(os.getpid(), signal.SIGINT)
        return step(process)

    with monkeypatch.context() as patched:
        patched.setattr(Denoise, "step", interrupted)
        assert sample(*arguments, "--run", "pets", "--out", f"none{out}").exit_code == 130
    assert sample(*arguments, "--run", "pets", "--out", f"resumed{out}").exit_code == 0
    assert Path(f"resumed{out}").read_bytes() == Path(f"whole{out}").read_bytes()
    again = sample(*arguments, "--run", "pets", "--out", f"again{out}")
    assert again.exit_code == 0
    assert Path(f"again{out}").read_bytes() == Path(f"whole{out}").read_bytes()
    shown = CliRunner().invoke(cli, ["runs", "show", "pets", "--json"])
    assert "base64" not in shown.output and len(shown.output) < 20_000


@pytest.mark.parametrize(
    ("other", "changed"),
    [
        (("--label", "dog"), r"--label was none, is \['dog'\]"),
        (("--solver", "heun", "--guidance", "2"), "--solver was dpmpp_2m, is heun; --guidance was"),
        (("--steps", "9"), "--steps was 3, is 9"),
        (("--from", "a.png"), "--from was none, is "),
        (("--min-sharpness", "0.1"), "--min-sharpness was none, is 0.1"),
    ],
)
def test_a_run_does_not_resume_with_other_inputs(
    model: str, other: tuple[str, ...], changed: str
) -> None:
    arguments = (model, "--steps", "3", "--run", "pets")
    sample(*arguments, "--out", "a.png")
    with pytest.raises(OstinatoError, match=f"it started with, but {changed}"):
        sample(*arguments, *other, "--out", "b.png")
    assert not Path("b.png").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--label", "bird"), "A label must be one of cat, dog, got 'bird'"),
        (("--out", "a.jpg"), "--out must end in .png or .gif"),
        (("--strength", "0.5"), "--strength must come with --from"),
        (("--from", "none.png"), "none.png must be an image, got: no such file or directory"),
        (("--rounds", "2"), "--rounds must come with a check"),
        (("--interpolate-to", "3"), "--interpolate-to must come with --count"),
        (("--each", "Convergs(1)"), "Converges"),
        (("--seed", "-1"), "seed"),
        (("--until-passes",), "classifier must read the model.s images, 8 x 8 pixels"),
        (("--classifier", "digits"), "--classifier must come with --min-class-probability"),
        (("--min-clip-score", "0.3"), "--min-clip-score must come with --clip-model"),
        (("--clip-text", "a cat"), "--clip-text must come with --clip-model"),
        (("--clip-model", "nothing"), "--clip-model must come with --clip-text"),
        (("--clip-model", "nothing", "--clip-text", "a cat"), "CLIP model must be a folder"),
    ],
)
def test_bad_input_is_refused_before_any_sampling(
    model: str, arguments: tuple[str, ...], message: str
) -> None:
    with pytest.raises(OstinatoError, match=message):
        sample(model, *arguments)
    assert not list(Path().glob("*.png"))


def test_a_missing_model_is_reported(model: str) -> None:
    with pytest.raises(OstinatoError, match=r"must be a folder with config\.json"):
        sample("nothing")
