"""A branch of any training is driven by the command that is printed for it, beside its parent."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from ostinato.cli.main import cli
from ostinato.journal import Journal
from ostinato.music import Score, write_midi

CHORDS = ((67, 64, 60, 48), (69, 65, 60, 53), (67, 62, 59, 43), (67, 64, 60, 48))
COMMON = "--steps 4 --checkpoint-every 2 --valid-every 2 --warmup-steps 2"
TRAININGS = {
    "image": f"train image digits-8x8 --out made --channels 16 --batch-size 32 {COMMON}",
    "music": "train music pieces --out made --hold-out 0.25 --layers 1 --width 16 --heads 1 "
    f"--batch-tokens 256 {COMMON}",
    "image-tokens": "train image-tokens digits-8x8 --out made --codec-steps 2 --layers 1 "
    f"--width 32 --heads 2 --batch-size 16 {COMMON}",
    "pixels": "train image-tokens digits-8x8 --out made --method pixels --levels 2 --layers 1 "
    f"--width 32 --heads 2 --batch-size 16 {COMMON}",
}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for n in range(4):
        write_midi(Score(CHORDS * 2).moved(n), tmp_path / "pieces" / f"{n}.mid")
    return tmp_path


def output_of(line: str) -> str:
    result = CliRunner().invoke(cli, shlex.split(line))
    assert result.exit_code == 0, (result.output, result.exception)
    return result.output


def branched(line: str) -> str:
    """Make a branch; return the command that resumes it, without the program's name."""
    return output_of(line).splitlines()[-1].removeprefix("Resume it with: ostinato ")


def weights(folder: str) -> dict[str, bytes]:
    files = sorted(Path(folder).rglob("*.safetensors"))
    assert files
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def reports(name: str) -> list[dict[str, Any]]:
    with Journal() as journal:
        return [dict(step.report) for step in journal.get(name).steps()]


@pytest.mark.parametrize("kind", TRAININGS)
def test_a_branch_with_another_rate_leaves_its_parent_alone(kind: str) -> None:
    output_of(TRAININGS[kind])
    before = weights("made")
    command = branched("runs branch train-made --at 2 --as low --set lr=0.00001")
    assert command == "runs resume low"
    assert "Resuming from step 2." in output_of(command)
    assert weights("made") == before
    assert weights("low") != before
    assert max(report["lr"] for report in reports("low")) <= 1e-5
    assert "The run is finished" in output_of(command)
    typed = TRAININGS[kind].replace("--out made", "--out low") + " --run low"
    assert "The run is finished" in output_of(typed)
    assert weights("made") == before


@pytest.mark.parametrize("kind", TRAININGS)
def test_a_branch_with_nothing_changed_comes_to_the_same_weights(kind: str) -> None:
    output_of(TRAININGS[kind])
    branched("runs branch train-made --at 2 --as same")
    assert "Saved in same (run same)." in output_of("runs resume same")
    own, same = weights("made"), weights("same")
    assert all(own[name] == same[name] for name in same)
    assert reports("same") == reports("train-made")[2:]


@pytest.mark.parametrize("kind", ["image", "image-tokens"])
def test_a_branch_of_a_branch_is_driven_too(kind: str) -> None:
    output_of(TRAININGS[kind])
    output_of(branched("runs branch train-made --at 2 --as low --set lr=0.00001"))
    before = weights("low")
    command = branched("runs branch low --at 4 --as lower --set lr=0.001")
    on = output_of(f"{command} --until 'Steps(6)'")
    assert "Resuming from step 4." in on and "Saved in lower (run lower)." in on
    assert weights("low") == before != weights("lower")


def test_a_branch_of_the_end_takes_no_step_beyond_it() -> None:
    output_of(TRAININGS["music"])
    output_of("runs branch train-made --as longer")
    assert "It has taken 4 steps, the limit." in output_of("runs resume longer")
    assert Journal().get("longer").tick == 4
    output_of('runs resume longer --until "Steps(6)"')
    assert Journal().get("longer").tick == 6


def test_a_branch_that_is_called_as_its_parents_folder_writes_beside_it() -> None:
    output_of(TRAININGS["image-tokens"])
    before = weights("made")
    command = branched("runs branch train-made-codes --as codes")
    output_of(f"{command} --until 'Steps(3)'")
    assert {name: each for name, each in weights("made").items() if "codes-2" not in name} == before
    assert len(weights("made/codes-2")) == 1
