"""Images of a generator: in any company the same, checked, drawn again, and recorded."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result
from torch import Tensor

from ostinato.adversarial import (
    Duel,
    GanConfig,
    Generate,
    Generator,
    draw_again,
    save_generator,
)
from ostinato.cli.main import cli
from ostinato.errors import ItemError, OstinatoError
from ostinato.image import ImageRequest, Sharpness, sample_images
from ostinato.journal import Journal, tensor_of
from ostinato.loop import Lane, Never
from ostinato.media import image_io
from ostinato.testing import check_lane_process

SHAPE = GanConfig(size=8, classes=2, names=("bars", "posts"), latent=4, widths=(4,), features=8)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    save_generator(tmp_path / "made", Generator(SHAPE))
    return tmp_path


def call(line: str) -> Result:
    return CliRunner().invoke(cli, shlex.split(line))


def test_an_image_is_the_same_in_any_company() -> None:
    items = {
        "one": ImageRequest(label=1, seed=4),
        "any": ImageRequest(),
        "between": ImageRequest(label=0, seed=4, interpolate_to=9, share=0.3),
        "other": ImageRequest(label=0, seed=9),
    }
    check_lane_process(lambda slots: Generate(Generator(SHAPE), slots=slots), items)


def image_of(request: ImageRequest, round: int = 0) -> Tensor:
    process = Generate(Generator(SHAPE))
    process.start(Lane("x", round=round), request)
    process.step()
    image = process.output("x")
    assert isinstance(image, Tensor)
    return image


def test_a_path_begins_and_ends_with_the_images_of_its_seeds() -> None:
    ends = [image_of(ImageRequest(label=1, seed=seed)) for seed in (4, 9)]
    path = [
        image_of(ImageRequest(label=1, seed=4, interpolate_to=9, share=share))
        for share in (0, 0.5, 1)
    ]
    assert torch.allclose(path[0], ends[0], atol=1e-5)
    assert torch.allclose(path[2], ends[1], atol=1e-5)
    assert not torch.allclose(path[1], ends[0], atol=1e-3)


def test_another_round_has_other_noise() -> None:
    request = ImageRequest(label=1, seed=4)
    assert not torch.equal(image_of(request), image_of(request, round=1))


def test_what_is_no_new_image_is_refused() -> None:
    with pytest.raises(ItemError, match="leave the image to change out"):
        image_of(ImageRequest(image=torch.zeros(1, 8, 8)))


def test_an_image_that_fails_is_drawn_again_at_most_so_often() -> None:
    impossible = Sharpness(least=1.0)
    loop = sample_images(
        Generate(Generator(SHAPE)),
        [ImageRequest(label=0, seed=1)],
        ImageRequest.to_json,
        Never(),
        [impossible],
        draw_again(3),
        0,
    )
    (result,) = [result for step in loop for result in step.results]
    assert not result.accepted and result.rounds == 3 and result.spent == {"calls": 3}


def test_the_command_writes_a_row_for_each_class_and_records_it() -> None:
    made = call("sample gan made --label bars --label 1 --count 3 --seed 5 --out a.png --json")
    assert made.exit_code == 0, made.output
    assert len(json.loads(made.stdout)["images"]) == 6
    with Journal(".ostinato/journal.db") as journal:
        rows = [row for _, row in journal.get("sample-gan").results()]
    expected = image_of(ImageRequest(label=1, seed=6))
    assert any(torch.equal(tensor_of(row["output"]), expected) for row in rows)
    picture = Path("a.png").read_bytes()
    Path("a.png").unlink()
    assert call("runs resume sample-gan").exit_code == 0
    assert Path("a.png").read_bytes() == picture


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("sample gan nothing", "A generator must be a folder"),
        ("sample gan made --label 7", "must be one of bars, posts, got '7'"),
        ("sample gan made --interpolate-to 3", "--interpolate-to must come with --count"),
        ("sample gan made --min-class-probability 0.5", "must read the model's images"),
        ("train gan strokes --hold-out 0", "above 0: samples are compared with it"),
        ("train gan strokes --loss hinge --penalty 2", "hinge loss, which has none"),
        ("train gan strokes --augment blur", "augment must be any of"),
        ("train gan nowhere", "nowhere"),
    ],
)
def test_bad_input_is_told(folder: Path, line: str, message: str) -> None:
    (folder / "strokes").mkdir()
    for n in range(12):
        image_io.save(torch.full((1, 8, 8), n / 12), folder / "strokes" / f"{n}.png", side=64)
    found = call(f"{line} --out x" if line.startswith("train") else line)
    assert found.exit_code != 0
    assert isinstance(found.exception, OstinatoError)
    assert message in f"{found.exception} {found.output}"
    assert not Path("x").exists()


def test_a_collapsed_duel_goes_back_by_itself_and_says_why(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "strokes").mkdir()
    for n in range(40):
        image_io.save(torch.rand(1, 8, 8) * 2 - 1, folder / "strokes" / f"{n}.png", side=64)
    monkeypatch.setattr(Duel, "watch", lambda duel: {"diversity": 0.1})
    made = call(
        "train gan strokes --out g --steps 500 --watch-every 1 --valid-every 100 --samples 8 "
        "--batch-size 4 --width 2 --latent 2 --sample-every 0 --checkpoint-every 100"
    )
    assert made.exit_code == 1, made.output
    with Journal(".ostinato/journal.db") as journal:
        run = journal.get("train-g")
        stops = [event.data for event in run.events() if "stopped" in event.data]
    answers = [stop["answer"] for stop in stops[:-1]]
    assert [answer["answer"] for answer in answers] == ["go back", "go back"]
    # Each time to position 0, as nothing was good, with all that was changed before.
    assert [answer["edits"] for answer in answers] == [
        {"generator/lr_scale": scale, "loss": "relativistic"} for scale in (0.25, 0.0625)
    ]
    assert all("alike since the start" in answer["reason"] for answer in answers)
    assert "It went back 2 times" in made.output
