"""`ostinato runs artifacts` lists what a run made, and writes it as files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from safetensors.torch import load_file

from ostinato.cli.main import cli
from ostinato.errors import RunError
from ostinato.journal import Journal, Sound


def call(*arguments: str) -> str:
    result = CliRunner().invoke(cli, ["runs", *arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


PIXELS = torch.arange(3 * 20 * 20).reshape(3, 20, 20).remainder(251).to(torch.uint8)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    with Journal() as journal:
        with journal.drive(journal.create("drawn", kind="test")) as session:
            session.step(1, 1, {"latent": torch.ones(4, 9, 9), "image": PIXELS + 1})
            session.result("a/../b", {"image": PIXELS, "sound": Sound(torch.zeros(900), 8000)})
        journal.create("texts", kind="test")
    return tmp_path


def test_results_are_listed_and_steps_too_where_they_are_wanted(folder: Path) -> None:
    first, second = call("artifacts", "drawn").splitlines()
    assert "image  uint8 3 x 20 x 20" in first and first.endswith("result a/../b")
    assert "sound  float32 900" in second
    every = json.loads(call("artifacts", "drawn", "--all", "--json"))["artifacts"]
    assert [each["kind"] for each in every] == ["tensor", "image", "image", "sound"]
    assert [each["source"] for each in every] == ["step", "step", "result", "result"]
    assert every[3]["rate"] == 8000 and every[0]["tick"] == 1 and every[0]["path"] is None
    assert len(call("artifacts", "drawn", "--all", "--kind", "image").splitlines()) == 2
    assert "artifacts   2 images, 1 sound, 1 tensor, " in call("show", "drawn")
    assert json.loads(call("show", "drawn", "--json"))["artifacts"] == 4


def test_files_are_written_into_the_folder_that_is_named(folder: Path) -> None:
    paths = call("artifacts", "drawn", "--all", "--out", "made/here").splitlines()
    assert sorted(Path(path).suffix for path in paths) == [".png", ".png", ".safetensors", ".wav"]
    there = folder / "made" / "here"
    assert sorted(Path(path).name for path in paths) == sorted(p.name for p in there.iterdir())
    (image,) = there.glob("a-*.png")
    shown = torch.from_numpy(np.array(Image.open(image))).permute(2, 0, 1)
    assert torch.equal(shown, PIXELS)
    (latent,) = there.glob("000001-*.safetensors")
    assert torch.equal(load_file(latent)["artifact"], torch.ones(4, 9, 9))
    before = {path.name: path.read_bytes() for path in there.iterdir()}
    call("artifacts", "drawn", "--all", "--out", "made/here")
    assert {path.name: path.read_bytes() for path in there.iterdir()} == before


def test_a_run_without_any_and_a_folder_that_cannot_be_are_told(folder: Path) -> None:
    assert call("artifacts", "texts") == "No result has artifacts. Those of steps: --all.\n"
    assert call("artifacts", "texts", "--all") == "No artifacts.\n"
    (folder / "file").write_text("")
    result = CliRunner().invoke(cli, ["runs", "artifacts", "drawn", "--out", "file"])
    assert result.exit_code == 2 and "is a file" in result.output
    with pytest.raises(
        RunError, match=r"The file file/x/.* could not be written: .*another folder"
    ):
        call("artifacts", "drawn", "--out", "file/x")
