"""Checkpoints of lanes hold no pictures: they refer to artifacts, and resume and branch exactly."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from tiny_denoiser import TinyDenoiser
from torch import Tensor

from ostinato.image import denoise_loop
from ostinato.journal import Journal, Unchanging, tensor_of
from ostinato.loop import CheckpointSchedule, Loop, lanes

NETWORK = TinyDenoiser(3, 64)
PICTURE = 3 * 64 * 64 * 4  # bytes
STEPS = 12
EVERY = CheckpointSchedule(steps=1, keep=100)


def loop(run: str | None = None, **more: Any) -> Loop:
    where: dict[str, Any] = {} if run is None else {"run": run, "checkpoint": EVERY}
    return denoise_loop([0, 1], model=NETWORK, steps=STEPS, **where, **more)


def images(of: Loop) -> dict[str, Tensor]:
    return {one.key: tensor_of(one.output) for step in of for one in step.results}


def equal(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.db"


@pytest.mark.parametrize("keep", ["steps", "results"])
def test_checkpoints_hold_no_pictures_and_every_one_can_be_branched_from(
    keep: Literal["steps", "results"], path: Path
) -> None:
    with Journal(path) as journal:
        whole = images(loop("a", journal=journal, keep=keep))
        run = journal.get("a")
        sizes = [row.bytes for row in run.checkpoints()]
        assert len(sizes) == STEPS and max(sizes) < PICTURE  # with both lanes' 2 x 11 before
        # Each step's two pictures once; the last step's is also the result.
        assert sum(row.bytes for row in run.artifacts()) < (STEPS * 2 * 2 + 1) * PICTURE
        for tick in (1, 7):
            journal.branch(run, f"b{tick}", tick=tick)
        journal.delete("a")
        for tick in (1, 7):
            assert equal(images(loop(f"b{tick}", journal=journal, keep=keep)), whole)


def test_without_recorded_steps_pictures_go_with_the_last_checkpoint_that_needs_them(
    path: Path,
) -> None:
    whole = images(loop())
    few = CheckpointSchedule(steps=2, keep=1)
    with Journal(path) as journal:

        def part(name: str, until: int) -> dict[str, Tensor]:
            more: dict[str, Any] = {
                "run": name,
                "checkpoint": few,
                "journal": journal,
                "keep": "results",
            }
            each = denoise_loop([0, 1], model=NETWORK, steps=STEPS, slots=1, **more)
            found: dict[str, Tensor] = {}
            for step in each:
                found |= {one.key: tensor_of(one.output) for one in step.results}
                if step.tick == until:
                    break
            each.close()
            return found

        found = part("a", 11)
        run = journal.get("a")
        assert len([row for row in run.artifacts() if row.source == "checkpoint"]) == 2 * 11
        journal.branch(run, "b", tick=11)
        found |= part("a", 99)
        # Of the second image's last checkpoint before its end, and the two results.
        sources = [row.source for row in run.artifacts()]
        assert sources.count("result") == 2 and sources.count("checkpoint") <= 2 * STEPS
        assert equal(found, whole)
        sizes = {each.row.name: each.bytes for each in journal.summaries()}
        assert 0 < sizes["a"] < (2 * STEPS + 3) * PICTURE
        journal.delete("a")
        assert equal(part("b", 99), whole)
        journal.delete("b")
        assert run.database.query("SELECT COUNT(*) FROM artifacts") == [(0,)]


def test_a_checkpoint_of_an_older_version_is_resumed(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = images(loop())
    with Journal(path) as journal:
        with monkeypatch.context() as older:
            older.setattr(lanes, "Unchanging", dict)  # its states held all tensors themselves
            first = loop("a", journal=journal)
            for step in first:
                if step.tick == 5:
                    break
            first.close()
        assert journal.get("a").checkpoints()[-1].bytes > 2 * 5 * 2 * PICTURE
        assert equal(images(loop("a", journal=journal)), whole)
        assert "differs" not in [event.name for event in journal.get("a").events()]


def test_copies_of_a_state_in_memory_share_their_pictures() -> None:
    running = loop()
    next(iter(running))
    state: Any = running.process.state_dict()
    copied = copy.deepcopy(state)
    (draft, _), (again, _) = state["drafts"], copied["drafts"]
    assert copied is not state and isinstance(draft, Unchanging)
    assert draft["reports"][0]["clean"] is again["reports"][0]["clean"]


def test_an_image_that_is_edited_from_outside_is_edited_once_when_the_program_runs_again(
    path: Path,
) -> None:
    picture = torch.linspace(-1, 1, 3 * 64 * 64).reshape(3, 64, 64)

    def edited(ends: int) -> dict[str, Tensor]:
        with Journal(path) as journal:
            each = denoise_loop([0], model=NETWORK, steps=STEPS, run="a", journal=journal)
            found: dict[str, Tensor] = {}
            for step in each:
                found |= {one.key: tensor_of(one.output) for one in step.results}
                if step.tick == 3:
                    each.change({"renoise": picture})
                if step.tick == ends:
                    break
            each.close()
            events = [event.name for event in journal.get("a").events()]
            assert events.count("change") == 1
        return found

    edited(5)
    with Journal(path) as journal:  # from the start, as after a kill before any checkpoint
        run = journal.get("a")
        with journal._database.write() as connection:
            connection.execute("DELETE FROM checkpoints")
        assert run.load() is None
    assert len(edited(99)) == 1
