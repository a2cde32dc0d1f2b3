"""Training a denoiser: the task conforms, and `ostinato train image` works end to end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image
from test_unet import SMALL

from ostinato.cli.main import cli
from ostinato.errors import InputError, OstinatoError
from ostinato.image import (
    RECIPE,
    ImageTask,
    NoiseLevels,
    UNet,
    UNetConfig,
    hold_out,
    load_denoiser,
    read_images,
    shape_for,
)
from ostinato.testing import check_process
from ostinato.train import Training, TrainingConfig

ARGUMENTS = (
    "digits-8x8",
    "--channels",
    "16",
    "--warmup-steps",
    "2",
    "--batch-size",
    "32",
    "--valid-every",
    "5",
)


def training(**changes: Any) -> Training:
    train, valid = hold_out(read_images(["digits-8x8"]).at(range(96)), 0.25)
    config = TrainingConfig(
        **{
            "steps": 12,
            "batch_tokens": 24,
            "valid_every": 4,
            "ema_decay": 0.9,
            "lr": 3e-3,
            **changes,
        }
    )
    shape: dict[str, Any] = {**SMALL, "classes": 10}
    return Training(UNet(UNetConfig(**shape)), ImageTask(train, valid), config)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_a_training_on_images_conforms(optimizer: str) -> None:
    check_process(lambda: training(optimizer=optimizer), steps=6, cuts=(0, 3, 4))


def test_the_loss_falls_and_is_reported_by_noise_level() -> None:
    process = training(steps=60)
    reports = [process.step() for _ in range(60)]
    first, last = (
        sum(float(str(r["loss/train"])) for r in part) for part in (reports[:10], reports[-10:])
    )
    assert last < 0.8 * first
    assert {"loss/sigma_low", "loss/sigma_mid", "loss/sigma_high", "images"} <= set(reports[0])
    assert "loss/valid_sigma_low" in reports[3]


def test_noise_levels_are_spread_within_a_batch() -> None:
    noise = NoiseLevels(mean=0.0, std=1.0)
    sigmas = noise.levels(100, torch.Generator().manual_seed(0))
    assert bool((sigmas.diff() > 0).all())
    assert float(sigmas.log().std()) == pytest.approx(1.0, abs=0.1)
    with pytest.raises(InputError, match=r"std of ln sigma must be above 0, got 0"):
        NoiseLevels(std=0)
    with pytest.raises(InputError, match=r"label_dropout must be in \[0, 1\)"):
        NoiseLevels(label_dropout=1.0)


def test_the_shape_fits_the_images() -> None:
    images = read_images(["digits-8x8"])
    assert shape_for(images).patch == 1
    assert shape_for(read_images(["digits-8x8"], size=28)).patch == 2
    assert shape_for(images, unconditional=True).classes == 0
    assert RECIPE.optimizer == "muon"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*arguments: str) -> Result:
    return CliRunner().invoke(
        cli, ["train", "image", *ARGUMENTS, *arguments], catch_exceptions=False
    )


def test_a_denoiser_is_trained_shown_saved_and_sampled(folder: Path) -> None:
    result = run("--out", "net", "--steps", "10", "--sample-every", "5")
    assert result.exit_code == 0, result.output
    assert "valid" in result.output and "sigma low" in result.output
    assert "It has taken 10 steps, the limit." in result.output
    with Image.open("net/samples/step-000010.png") as image:
        grid = 14 * (80 + 9), 14 * (32 + 3)  # enlarged, to be seen
        assert image.size == (grid[0], grid[1] + 4 + 24)  # step and losses below it
    assert load_denoiser("net").config.names == tuple("0123456789")
    sampled = CliRunner().invoke(
        cli, ["sample", "image", "net", "--label", "7", "--steps", "3"], catch_exceptions=False
    )
    assert sampled.exit_code == 0 and Path("sample.png").is_file()
    assert (
        "The run is finished" in run("--out", "net", "--steps", "10", "--sample-every", "5").output
    )


def test_a_resumed_training_equals_one_without_a_pause(folder: Path) -> None:
    run("--out", "whole", "--until", "Steps(8)")
    run("--out", "parts", "--until", "Steps(3)")
    run("--out", "parts", "--until", "Steps(8)")
    whole, parts = load_denoiser("whole").state_dict(), load_denoiser("parts").state_dict()
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


def test_wrong_input_is_refused(folder: Path) -> None:
    (folder / "pets").mkdir()
    for n in range(3):
        Image.new("L", (8, 8)).save(folder / "pets" / f"{n}.png")

    def train(*arguments: str) -> Result:
        return CliRunner().invoke(cli, ["train", "image", *arguments], catch_exceptions=False)

    with pytest.raises(OstinatoError, match="--classes needs images with classes"):
        train("pets", "--classes", "--out", "net")
    with pytest.raises(OstinatoError, match="nothing must exist, got no such file or folder"):
        train("nothing", "--out", "net")
    (folder / "file").write_text("")
    with pytest.raises(OstinatoError, match="--out must be a folder, got the file file"):
        train("pets", "--out", "file")


def test_a_batch_of_no_images_is_refused_by_the_name_that_was_typed(tmp_path: Path) -> None:
    result = CliRunner().invoke(
        cli, ["train", "image", "digits-8x8", "--out", str(tmp_path / "o"), "--batch-size", "0"]
    )
    assert result.exit_code == 2
    assert "'--batch-size': 0 is not in the range x>=1" in result.output


def test_a_plan_and_a_refusal_name_the_options_of_the_command(folder: Path) -> None:
    (folder / "dots").mkdir()
    for n in range(12):
        Image.new("L", (8, 8), n).save(folder / "dots" / f"{n}.png")

    def train(*arguments: str) -> Result:
        command = ["train", "image", "dots", "--out", "net", "--channels", "16", *arguments]
        return CliRunner().invoke(cli, command)

    assert "--batch-size 2" in train("--epochs", "0.1", "--sample-every", "0").output
    refused = train("--batch-size", "3", "--sample-every", "0").exception
    assert "--batch-size was 2, is 3" in str(refused)
    wrong = train("--channels", "20").exception
    assert "--channels must be a multiple of 16, got 20." in str(wrong)
