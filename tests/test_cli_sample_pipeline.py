"""`ostinato sample image` with the folder of a pipeline, as a user types it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from PIL import Image

pytest.importorskip("diffusers")
pytest.importorskip("transformers")

from tiny_clip import tiny_clip
from tiny_pipelines import stable_diffusion, unconditional

from ostinato.cli.main import cli
from ostinato.errors import OstinatoError


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(stable_diffusion(tmp_path_factory.mktemp("pipeline")))


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OSTINATO_CACHE", str(tmp_path / "cache"))


def sample(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["sample", "image", *arguments], catch_exceptions=False)


def test_prompts_become_images(folder: str) -> None:
    words = ("--prompt", "a cat", "--prompt", "a dog", "--negative-prompt", "rain")
    result = sample(folder, *words, "--steps", "3", "--json")
    assert result.exit_code == 0
    printed = json.loads(result.output.splitlines()[-1])
    assert [each["stopped"]["kind"] for each in printed["images"]] == ["ended"] * 2
    assert printed["images"][0]["calls"] == 8  # PNDM takes its second step twice, guided
    with Image.open("sample.png") as image:
        assert image.mode == "RGB"


def test_steps_are_shown_decoded(folder: str) -> None:
    words = ("--prompt", "a cat", "--steps", "3", "--guidance", "1")
    assert sample(folder, *words, "--show-steps", "--out", "steps.png").exit_code == 0
    with Image.open("steps.png") as image:
        assert image.size == (4 * (112 + 4) + 4, 112 + 4 + 2 * 12 + 4)
    assert sample(folder, *words, "--out", "steps.gif").exit_code == 0


def test_a_run_resumes_and_gives_the_same_image(folder: str) -> None:
    words = ("--prompt", "a cat", "--steps", "3", "--seed", "5")
    sample(folder, *words, "--out", "one.png")
    sample(folder, *words, "--out", "two.png", "--run", "cats")
    again = sample(folder, *words, "--out", "three.png", "--run", "cats")
    assert again.exit_code == 0
    one, two, three = (Path(f"{name}.png").read_bytes() for name in ("one", "two", "three"))
    assert one == two == three


def test_an_unconditional_pipeline_needs_no_words(tmp_path: Path) -> None:
    unconditional(tmp_path / "p", "ddim")
    assert sample("p", "--count", "2", "--steps", "3").exit_code == 0


def test_images_are_drawn_until_they_fit_their_words(folder: str, tmp_path: Path) -> None:
    clip = str(tiny_clip(tmp_path / "clip"))
    words = ("--prompt", "a cat", "--steps", "3", "--guidance", "1", "--clip-model", clip, "--json")

    def image(*more: str) -> dict[str, Any]:
        (image,) = json.loads(sample(folder, *words, *more).output.splitlines()[-1])["images"]
        return dict(image)

    fits = image("--min-clip-score", "-1")
    assert fits["accepted"] and fits["stopped"]["kind"] == "passed"
    never = image("--min-clip-score", "1", "--rounds", "1")
    assert not never["accepted"] and never["calls"] > fits["calls"]
    assert 'depicts: Make it look more like "a cat"' in never["stopped"]["sentence"]
    assert (
        image("--clip-text", "a dog", "--min-clip-score", "1", "--rounds", "1")["stopped"]
        != never["stopped"]
    )


def test_what_makes_no_sense_is_refused(folder: str, tmp_path: Path) -> None:
    for words, message in (
        ((folder,), "must be given a prompt, got none"),
        ((folder, "--prompt", "a", "--label", "3"), "--label must be left out"),
        ((folder, "--prompt", "a", "--height", "13"), "multiples of 8"),
        (("digits", "--prompt", "a"), "--prompt must come with"),
        ((folder, "--prompt", "a", "--until-passes"), "--until-passes must come with --clip-model"),
        (
            (folder, "--prompt", "a", "--min-class-probability", "0.9"),
            "--min-class-probability must be left out",
        ),
    ):
        with pytest.raises(OstinatoError, match=message):
            sample(*words)
