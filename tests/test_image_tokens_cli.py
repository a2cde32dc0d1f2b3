"""Drawings from the command line: two trainings that go on where they were, and samples."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from PIL import Image

from ostinato.cli.main import cli
from ostinato.errors import ModelError, OstinatoError
from ostinato.image.tokens import (
    VQ,
    Attributes,
    PixelQuantizer,
    VQConfig,
    load_image_token_model,
    new_image_token_model,
)
from ostinato.image.tokens.attributes import Thresholds
from ostinato.image.tokens.config import Method

SMALL = "--steps 8 --layers 1 --width 32 --heads 2 --batch-size 16 --valid-every 4"


def call(command: str) -> Result:
    return CliRunner().invoke(cli, command.split("|") if "|" in command else command.split())


def trained(method: str, more: str = "") -> Result:
    codes = "" if method == "pixels" else "--codec-steps 6"  # it has no autoencoder
    return call(
        f"train image-tokens digits-8x8 --out made --method {method} {codes} {SMALL} {more}"
    )


@pytest.mark.parametrize(
    "method", ["row", pytest.param("pixels", marks=pytest.mark.slow), "coarse"]
)
def test_a_model_is_trained_and_sampled(
    method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = trained(method)
    assert result.exit_code == 0, result.output
    assert load_image_token_model("made").method == method
    again = trained(method)
    assert again.exit_code == 0 and "is finished" in again.output
    drawn = call(
        "sample|image-tokens|made|--prompt|a slanted seven|--prompt|thin two|--count|2|--out|a.png"
        "|--json"
    )
    assert drawn.exit_code == 0, drawn.output
    output = json.loads(drawn.stdout)
    assert [image["prompt"] for image in output["images"]] == ["a slanted seven"] * 2 + [
        "thin two"
    ] * 2
    assert len({image["codes"] for image in output["images"]}) == 4
    with Image.open("a.png") as picture:
        assert picture.size == (2 * 8 * 14 + 14, 2 * 8 * 14 + 14)


def test_an_interrupted_training_resumes_to_the_same_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def weights(folder: str) -> tuple[bytes, bytes]:
        read = [Path(folder, part, "model.safetensors").read_bytes() for part in ("codes", "model")]
        return read[0], read[1]

    for name in ("whole", "cut"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "whole")
    assert trained("unmask").exit_code == 0
    monkeypatch.chdir(tmp_path / "cut")
    cut = trained("unmask", "--until Steps(3) --checkpoint-every 2")
    assert cut.exit_code == 0, cut.output
    went_on = trained("unmask", "--checkpoint-every 2")
    assert went_on.exit_code == 0, went_on.output
    assert weights(str(tmp_path / "cut" / "made")) == weights(str(tmp_path / "whole" / "made"))


def test_a_journaled_image_is_written_again_without_sampling(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert trained("unmask").exit_code == 0
    outputs = []
    for name in ("a.png", "b.png"):
        assert (
            call(f"sample image-tokens made --prompt two --out {name} --run drawn").exit_code == 0
        )
        outputs.append(Path(name).read_bytes())
    assert outputs[0] == outputs[1]
    other = call("sample image-tokens made --prompt one --out c.png --run drawn --seed 3")
    assert "--prompt was ['two'], is ['one']; --seed was 0, is 3" in str(other.exception)


def test_what_cannot_be_sampled_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    words = Attributes(("two",), (Thresholds(0.5, 0.1), Thresholds(2.0, 1.0), Thresholds(5.0, 3.0)))
    made = new_image_token_model(
        "pixels", PixelQuantizer(size=8), words, layers=1, width=16, heads=1
    )
    made.save("made")
    Path("folder.png").mkdir()
    for command, message in {
        "sample|image-tokens|made|--prompt|a cow|--out|a.png": "Unknown words 'cow'",
        "sample|image-tokens|made|--prompt|thick thin|--out|a.png": "either thick or thin once",
        "sample|image-tokens|made|--out|a.jpg": "--out must be a .png file",
        "sample|image-tokens|made|--out|folder.png": "got the folder folder.png",
        "sample|image-tokens|made|--guidance|2|--out|a.png": "guidance must be 1 for",
        "sample|image-tokens|made|--temperature|0|--out|a.png": "temperature must be above 0",
        "sample|image-tokens|made|--temperature|nan|--out|a.png": "temperature must be a number",
        "sample|image-tokens|made|--steps|4|--out|a.png": "steps must be left out for the method",
        "sample|image-tokens|made|--seed|-1|--out|a.png": "seed must be a whole number",
        "sample|image-tokens|nothing|--out|a.png": "nothing/config.json",
    }.items():
        refused(command, message)


def refused(command: str, message: str) -> None:
    result = call(command)
    text = str(result.exception)
    assert isinstance(result.exception, OstinatoError), (command, result.exception)
    assert result.exit_code != 0 and message in text, (command, text)
    assert text.endswith("."), text


def test_what_cannot_be_trained_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    VQ(VQConfig(size=16, halvings=1, width=16)).save(tmp_path / "other")
    Path("file").write_text("")
    small = "train|image-tokens|digits-8x8|--out|x"
    for more, message in {
        "--attribute-dropout|1": "--attribute-dropout must be in",
        "--size|4": "--size must be 8 to 64 pixels, got 4",
        "--size|-3": "--size must be 8 to 64 pixels, got -3",
        "--levels|4": "--levels must be left out of --method row",
        "--method|pixels|--levels|1": "--levels must be 2 to 256",
        "--method|pixels|--codec-steps|3": "--codec-steps must be left out of --method pixels",
        "--method|pixels|--codec|other": "--codec must be left out of --method pixels",
        "--codec|other|--codec-steps|3": "--codec-steps must be left out with --codec",
        "--codec|other": "--codec must be of images of 1 channels and 8 pixels",
        "--codec|nowhere": "nowhere/config.json must exist",
        "--codec-steps|0": "--codec-steps must be at least 1",
        "--method|pixels|--heads|0": "heads must be at least 1",
        "--method|pixels|--layers|0": "layers must be at least 1",
        "--method|pixels|--width|30|--heads|4": "width must be heads times an even number",
        "--hold-out|1": "--hold-out must be in [0, 1)",
        "--until|Nonsense(3)": "Nonsense",
    }.items():
        refused(f"{small}|{more}", message)
    assert "Invalid value for '--batch-size': 0" in call(f"{small}|--batch-size|0").output
    refused("train|image-tokens|nowhere|--out|x", "nowhere must exist")
    refused("train|image-tokens|digits-8x8|--out|file", "--out must be a folder")


def test_parts_of_two_models_are_refused(tmp_path: Path) -> None:
    words = Attributes(("two",), (Thresholds(0.5, 0.1), Thresholds(2.0, 1.0), Thresholds(5.0, 3.0)))
    codec = VQ(VQConfig(size=8, halvings=1, width=16))
    ways: tuple[Method, ...] = ("row", "unmask")
    for method in ways:
        new_image_token_model(method, codec, words, layers=1, width=16, heads=1).save(
            tmp_path / method
        )
        assert load_image_token_model(tmp_path / method).method == method
        VQ(VQConfig(size=16, halvings=1, width=16)).save(tmp_path / method / "codes")
        with pytest.raises(ModelError, match="belong together"):
            load_image_token_model(tmp_path / method)


def test_codes_are_trained_once_for_several_methods(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    codec = VQ(VQConfig.for_images(1, 8, width=16), seed=4)
    codec.save(tmp_path / "first" / "codes")
    small = "--steps 4 --layers 1 --width 16 --heads 1 --batch-size 8 --method unmask"
    result = call(f"train image-tokens digits-8x8 --out second --codec first {small}")
    assert result.exit_code == 0, result.output
    made = load_image_token_model("second").codec
    assert made.fingerprint() == codec.fingerprint()
    VQ(VQConfig.for_images(1, 8, width=16), seed=5).save(tmp_path / "first" / "codes")
    refused(
        f"train image-tokens digits-8x8 --out second --codec first {small}".replace(" ", "|"),
        "but the hash of the autoencoder was",
    )
