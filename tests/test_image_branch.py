"""An image is branched from a step: the same bits up to there, another class, guidance, solver."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result
from test_unet import shaken
from tiny_denoiser import TinyDenoiser

from ostinato.cli.main import cli
from ostinato.errors import OstinatoError
from ostinato.image import Denoise, ImageRequest, Renoise, Sharpness, denoise_loop, save_denoiser
from ostinato.journal import Journal
from ostinato.loop import CheckpointSchedule, Item, Lane, Loop, Timeline, Verdict

STEPS, AT = 8, 4
CHANGES: list[dict[str, Any]] = [
    {"label": 2},
    {"guidance": 3.0},
    {"solver": "heun"},
    {"label": 1, "guidance": 2.0, "solver": "ddpm"},
]


def drawn(journal: Journal, run: str) -> tuple[list[Any], Any]:
    """Return the run's reports by position, and the image."""
    loop = denoise_loop(
        [ImageRequest(label=0, seed=3)],
        model=TinyDenoiser(),
        steps=STEPS,
        guidance=1.5,
        run=run,
        journal=journal,
        checkpoint=CheckpointSchedule(steps=1, keep=STEPS),
    )
    reports, image = [], None
    with loop:
        for step in loop:
            reports += [lane.report for lane in step.lanes.values()]
            image = next((one.output for one in step.results), image)
    return reports, image


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: "-".join(change))
def test_a_branch_has_the_same_bits_up_to_its_step_and_another_image(
    tmp_path: Path, change: dict[str, Any]
) -> None:
    with Journal(tmp_path / "journal.db") as journal:
        whole, image = drawn(journal, "seven")
        journal.branch(journal.get("seven"), "same", tick=AT)
        journal.branch(journal.get("seven"), "other", tick=AT, edits=change)
        same, again = drawn(journal, "same")
        other, changed = drawn(journal, "other")
        assert journal.get("other").now().parent == (journal.get("seven").id, AT)
    assert [report["step"] for report in other] == list(range(AT + 1, STEPS + 1))
    assert torch.equal(image, again) and not torch.equal(image, changed)
    for kept, report in zip(whole[AT:], same, strict=True):
        assert torch.equal(kept["noisy"], report["noisy"])
    # What the branch continues from is what the first run had: an image that is edited in place
    # from the beginning, at the same step, is the same to the bit.
    process = Denoise(TinyDenoiser(), steps=STEPS, guidance=1.5, slots=1)
    process.start(Lane("x"), ImageRequest(label=0, seed=3))
    for kept in whole[:AT]:
        assert torch.equal(process.step()["x"]["noisy"], kept["noisy"])  # type: ignore[arg-type]
    process.rewind(Lane("x", edits=Timeline().added(AT, change)), AT)
    for report in other:
        assert torch.equal(process.step()["x"]["noisy"], report["noisy"])  # type: ignore[arg-type]


@pytest.mark.parametrize("label", [0, 1])
def test_a_branch_is_judged_by_its_own_class_however_far_an_image_goes_back(
    tmp_path: Path, label: int
) -> None:
    judged: list[object] = []

    @dataclass(frozen=True)
    class Never(Sharpness):
        def judge(self, output: object, item: Item) -> Verdict:
            judged.append(item.get("label"))
            return self.verdict(False, "No.")

    def go(journal: Journal, name: str) -> Loop:
        return denoise_loop(
            [ImageRequest(label=0, seed=3)],
            model=TinyDenoiser(),
            steps=STEPS,
            checks=[Never()],
            on_stop=Renoise(share=0.8, rounds=2),
            run=name,
            journal=journal,
            checkpoint=CheckpointSchedule(steps=1, keep=STEPS),
        )

    with Journal(tmp_path / "journal.db") as journal:
        with go(journal, "first") as loop:
            for step in loop:
                if step.tick == AT:
                    break
        journal.branch(journal.get("first"), "other", tick=AT, edits={"label": label})
        judged.clear()
        go(journal, "other").run()
    assert judged == [label] * len(judged) and len(judged) == 4


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, arguments, catch_exceptions=False)


def test_an_image_is_branched_from_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    save_denoiser(tmp_path / "model", shaken(classes=2, names=("cat", "dog")))
    sample = ("sample", "image", "model", "--label", "dog", "--steps", "6", "--show-steps")
    run(*sample, "--run", "dog", "--checkpoint-every", "1", "--out", "dog.png")
    settings = ("--set", "label=0", "--set", "guidance=2", "--set", "solver=euler")
    made = run("runs", "branch", "dog", "--at", "3", "--as", "cat", *settings)
    assert "Resume it with: ostinato runs resume cat\n" in made.output
    resumed = run(*sample, "--run", "cat", "--out", "cat.png", "--json")
    (image,) = json.loads(resumed.stdout)["images"]
    assert image["steps"] == 6 and image["calls"] == 3 + 3 * 2  # guided from there on
    from PIL import Image

    with Image.open("dog.png") as one, Image.open("cat.png") as two:
        assert one.size == two.size == (6 * 116 + 4, 2 * 140 + 4)
        half = (0, 0, 3 * 116, 2 * 140 + 4)
        assert one.crop(half).tobytes() == two.crop(half).tobytes()
        assert one.tobytes() != two.tobytes()


def test_a_branch_with_an_edit_that_is_not_known_is_refused(tmp_path: Path) -> None:
    with Journal(tmp_path / "journal.db") as journal:
        drawn(journal, "seven")
        journal.branch(journal.get("seven"), "wrong", tick=AT, edits={"solver": "fast"})
        with pytest.raises(OstinatoError, match="A solver must be one of"):
            drawn(journal, "wrong")


def test_checkpoints_are_refused_without_a_journal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(OstinatoError, match="--checkpoint-every must be given without"):
        run("sample", "image", "--checkpoint-every", "2", "--no-journal")
