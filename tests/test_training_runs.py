"""Trainings as runs: each kind is killed, resumed, branched, refused and built in Python."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from PIL import Image
from tiny import CORPUS

from ostinato.adversarial import Duel
from ostinato.cli.main import cli
from ostinato.cli.train import progress
from ostinato.errors import InputError, RunError
from ostinato.journal import Journal, Run
from ostinato.music import Score, write_midi
from ostinato.runs import build, config_of
from ostinato.train import Training, TrainingRun, TrainingWork

PIECE = Score(((67, 64, 60, 48), (69, 65, 60, 53), (67, 62, 59, 43), (67, 64, 60, 48)) * 2)
TEXT = (
    "train text a.txt --layers 1 --width 16 --heads 2 --context 16 --vocab-size 270 "
    "--batch-tokens 128 --warmup-steps 2 --sample-every 0 --steps 6"
)
COMMANDS = {
    "text": TEXT,
    "image": (
        "train image dots --channels 16 --batch-size 4 --warmup-steps 2 --steps 6 --sample-every 0"
    ),
    "gan": (
        "train gan strokes --width 4 --latent 4 --batch-size 4 --warmup-steps 2 --samples 8 "
        "--watch-every 2 --hold-out 0.3 --steps 6 --sample-every 0"
    ),
    "image-tokens": (
        "train image-tokens strokes --method unmask --layers 1 --width 16 --heads 1 "
        "--batch-size 16 --codec-steps 6 --hold-out 0.3 --steps 6"
    ),
    "vae": (
        "train vae strokes --width 16 --latent 4 --batch-size 4 --warmup-steps 2 --hold-out 0.3 "
        "--steps 6 --sample-every 0"
    ),
    "music": "train music pieces --layers 1 --width 16 --heads 1 --batch-tokens 256 --steps 6",
}
EVERY = " --checkpoint-every 2 --valid-every 2"
KINDS = pytest.mark.parametrize("kind", COMMANDS)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.txt").write_text(" ".join(CORPUS) * 12)
    (tmp_path / "dots").mkdir()
    for n in range(12):
        Image.new("L", (8, 8), 20 * n).save(tmp_path / "dots" / f"{n}.png")
    for label, sides in {"bars": (2, 6), "posts": (6, 2)}.items():
        (tmp_path / "strokes" / label).mkdir(parents=True)
        for n in range(10):
            stroke = Image.new("L", (8, 8))
            stroke.paste(100 + 15 * n, (1, 1, 1 + sides[0], 1 + sides[1]))
            stroke.save(tmp_path / "strokes" / label / f"{n}.png")
    for n in range(4):
        write_midi(PIECE.moved(n), tmp_path / "pieces" / f"{n}.mid")
    return tmp_path


def call(line: str) -> Result:
    return CliRunner().invoke(cli, shlex.split(line))


def output_of(line: str) -> str:
    result = call(line)
    assert result.exit_code == 0, (result.output, result.exception)
    return result.output


def refused(kind: type[Exception], line: str) -> str:
    error = call(line).exception
    assert type(error) is kind, error
    return str(error)


def weights(out: str) -> dict[str, bytes]:
    files = sorted(Path(out).rglob("*.safetensors"))
    assert files
    return {str(file.relative_to(out)): file.read_bytes() for file in files}


@contextmanager
def dying(step: int, trains: Callable[[Any], bool] = lambda each: True) -> Iterator[None]:
    """Let a training die at a step, without a checkpoint: it is recorded as interrupted."""

    def dying_step(take: Callable[[Any], Any]) -> Callable[[Any], Any]:
        def dies(self: Any) -> Any:
            if self.cursor.steps == step and trains(self):
                raise KeyboardInterrupt
            return take(self)

        return dies

    with pytest.MonkeyPatch.context() as patch:
        for process in (Training, Duel):
            patch.setattr(process, "step", dying_step(process.step))
        yield


def is_codec(training: Any) -> bool:
    return type(training.network).__name__ == "VQ"


@contextmanager
def run_of(name: str) -> Iterator[tuple[Journal, Run]]:
    with Journal() as journal:
        yield journal, journal.get(name)


def by_name(name: str, command: str) -> None:
    assert "Resuming from step" in output_of(f"runs resume {name}")


def by_command(name: str, command: str) -> None:
    assert "Resuming from step" in output_of(command)


def by_python(name: str, command: str) -> None:
    with run_of(name) as (_, run):
        work = build(run)
        assert isinstance(work, TrainingWork) and work.loop.tick
        work.loop.run()
        work.finish()


@KINDS
def test_a_training_that_died_resumes_to_the_same_bytes(kind: str) -> None:
    command = COMMANDS[kind] + EVERY
    output_of(f"{command} --out whole")
    for number, resume in enumerate((by_name, by_command, by_python)):
        mine = f"{command} --out cut{number}"
        with dying(5, lambda training: not is_codec(training)):
            assert call(mine).exit_code != 0
        resume(f"train-cut{number}", mine)
        assert weights(f"cut{number}") == weights("whole"), resume


CHANGES = {
    "gan": ("--lr 0.5 --width 8", "--lr was 0.002, is 0.5; --width was 4, is 8"),
    "text": ("--lr 0.5 --layers 2", "--lr was 0.001, is 0.5; --layers was 1, is 2"),
    "image": ("--blocks 2", "--blocks was 1, is 2"),
    "image-tokens": ("--heads 2 --batch-size 8", "--batch-size was 16, is 8; --heads was 1, is 2"),
    "vae": ("--beta 2.0 --latent 8", "--latent was 4, is 8; --beta was 1.0, is 2.0"),
    "music": ("--width 32", "--width was 16, is 32"),
}


@KINDS
def test_a_run_of_another_configuration_is_refused_field_by_field(kind: str) -> None:
    command = f"{COMMANDS[kind]} --out made --until Steps(1)"
    output_of(command)
    before = weights("made")
    more, told = CHANGES[kind]
    message = refused(InputError, f"{command} {more}")
    assert f"'train-made' must keep the configuration it started with, but {told}" in message
    assert "--fresh to start over" in message and weights("made") == before
    assert call(f"{command} {more} --fresh").exit_code == 0


@KINDS
def test_a_run_that_lacks_a_field_goes_on(kind: str) -> None:
    command = f"{COMMANDS[kind]} --out made"
    output_of(f"{command} --until Steps(2)")
    with run_of("train-made") as (journal, run):
        config: Any = run.spec["config"]
        assert config.pop("checkpoint_every") == 100
        config["training"].pop("precision")
        journal.amend(run, {"config": config})
    assert "Resuming from step 2." in output_of(command)
    assert "but --precision was float32, is bfloat16." in refused(
        InputError, f"{command} --precision bfloat16"
    )


def test_a_branch_of_a_text_training_writes_into_a_folder_of_its_own() -> None:
    command = TEXT + EVERY
    output_of(f"{command} --out small")
    before = weights("small")
    made = output_of("runs branch train-small --at 2 --as low --set lr=0.00001")
    assert made.splitlines()[-1] == "Resume it with: ostinato runs resume low"
    text = output_of("runs resume low")
    assert "Resuming from step 2." in text and "Saved in low (run low)." in text
    assert weights("small") == before != weights("low")
    assert "The run is finished" in output_of(f"{command} --out low --run low")


@KINDS
def test_a_training_without_a_journal_writes_the_same_model_and_no_record(kind: str) -> None:
    output_of(f"{COMMANDS[kind]} --out made --no-journal")
    assert not Path(".ostinato").exists()
    output_of(f"{COMMANDS[kind]} --out again")
    assert weights("made") == weights("again")


@pytest.mark.slow
@KINDS
def test_a_training_that_was_killed_resumes_to_the_same_bytes(kind: str) -> None:
    command = COMMANDS[kind].replace("--steps 6", "--steps 60") + EVERY
    output_of(f"{command} --out whole")
    for resume in (by_name, by_command):
        name = f"cut-{resume.__name__}"
        line = f"{command} --out {name}"
        child = subprocess.Popen([sys.executable, "-m", "ostinato", *shlex.split(line)])
        while not _has_taken(f"train-{name}", 5):
            assert child.poll() is None
            time.sleep(0.01)
        child.kill()
        child.wait()
        resume(f"train-{name}", line)
        assert weights(name) == weights("whole")


def _has_taken(name: str, steps: int) -> bool:
    if not Path(".ostinato/journal.db").exists():
        return False
    with Journal() as journal:
        run = journal.find(name)
        return run is not None and run.tick >= steps


def test_a_training_in_python_alone_is_one_configuration(folder: Path) -> None:
    output_of(f"{COMMANDS['music']} --out made")
    with run_of("train-made") as (_, run):
        config = config_of(run)
        assert isinstance(config, TrainingRun)
        assert (config.kind, config.out, config.until) == ("train music", folder / "made", None)
        with pytest.raises(InputError, match="lr must be a field of a train music run that may"):
            build(run, lr=0.5)


# Ends and outputs -------------------------------------------------------------------------------


def rates(name: str) -> list[Any]:
    with run_of(name) as (_, run):
        return [step.report["lr"] for step in run.steps()]


def test_a_finished_training_says_why_and_resumes_with_another_condition() -> None:
    output_of(f"{TEXT} --out small")
    text = output_of("runs resume train-small")
    assert "The run is finished: It has taken 6 steps, the limit." in text
    assert 'such as ostinato runs resume train-small --until "Steps(12)"; to start over' in text
    assert "Unknown condition" in str(call("runs resume train-small --until Step(9)").exception)
    assert "Resuming from step 6." in output_of("runs resume train-small --until 'Steps(8)'")
    assert len(rates("train-small")) == 8
    assert 'ostinato runs resume train-small --until "…"' in output_of("runs show train-small")
    assert "It has taken 8 steps" in output_of("runs resume train-small")


def test_a_condition_that_was_given_on_resume_is_kept() -> None:
    output_of(f"{TEXT} --out small")
    with dying(7):
        call("runs resume train-small --until 'Steps(9)'")
    assert "It has taken 9 steps, the limit." in output_of("runs resume train-small")


def test_a_training_is_resumed_from_another_folder(folder: Path) -> None:
    output_of(f"{TEXT} --out small --until Steps(2)")
    (folder / "elsewhere").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder / "elsewhere")
        journal = shlex.quote(str(folder / ".ostinato/journal.db"))
        line = f"runs resume train-small --until 'Steps(6)' --journal {journal} --json"
        result = CliRunner().invoke(cli, shlex.split(line))
        assert result.exit_code == 0, result.exception
        shown = json.loads(result.stdout)
    assert shown["tick"] == 6 and shown["out"] == str(folder / "small")
    output_of(f"{TEXT} --out whole")
    assert weights("small") == weights("whole")


def test_files_outside_of_the_journals_folder_are_read_only_with_trust(
    folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    other = tmp_path_factory.mktemp("other")
    output_of(f"{TEXT} --out {other / 'small'} --until Steps(2)")
    line = "runs resume train-small --until 'Steps(3)'"
    assert str(other / "small") in refused(RunError, line)
    output_of(f"{line} --trust")


def test_a_named_training_may_write_elsewhere_but_not_be_changed() -> None:
    output_of(f"{TEXT} --out small --run other")
    assert "The run is finished" in output_of(f"{TEXT} --run other --out elsewhere")
    assert Path("elsewhere/model.safetensors").is_file()
    assert "but --lr was 0.001, is 0.5." in refused(
        InputError, f"{TEXT} --out small --run other --lr 0.5"
    )


def test_data_may_move_but_not_change(folder: Path) -> None:
    output_of(f"{TEXT} --out small --until Steps(2)")
    (folder / "a.txt").rename(folder / "b.txt")
    moved = TEXT.replace("a.txt", "b.txt")
    assert "Resuming from step 2." in output_of(f"{moved} --out small --until Steps(3)")
    (folder / "b.txt").write_text(" ".join(CORPUS) * 13)
    for line in (f"{moved} --out small", "runs resume train-small --until 'Steps(4)'"):
        assert "but the hash of the data was" in refused(InputError, line)


def test_the_weights_to_start_from_belong_to_a_training(folder: Path) -> None:
    output_of(f"{TEXT} --out base")
    tuned = "train text a.txt --from base --context 16 --out tuned"
    output_of(f"{tuned} --steps 2 --until Steps(1)")
    output_of(f"{TEXT} --out base --until Steps(8)")
    for line in (tuned, "runs resume train-tuned --until 'Steps(2)'"):
        assert "but the hash of the model to start from was" in refused(InputError, line)


def test_a_run_of_an_older_version_is_shown_and_says_how_to_go_on(folder: Path) -> None:
    old: dict[str, Any] = {"task": "text", "out": str(folder / "small"), "settings": "abc"}
    with Journal() as journal:
        journal.create("train-small", kind="train", spec=old)
    assert "train-small: train, new" in output_of("runs show train-small")
    message = refused(InputError, f"{TEXT} --out small")
    assert "an older version recorded it" in message and "--fresh" in message
    output_of(f"{TEXT} --out small --fresh")


def test_fresh_deletes_an_earlier_training_but_no_other_run() -> None:
    output_of(f"{COMMANDS['music']} --out made --run mine")
    output_of(f"{TEXT} --out made --run mine --fresh")
    with Journal() as journal:
        assert journal.get("mine").kind == "train text"
        journal.create("walk", kind="Walk")
    assert "give another name" in refused(InputError, f"{TEXT} --out made --run walk --fresh")


# The autoencoder of image tokens ----------------------------------------------------------------


def test_an_autoencoder_is_a_run_that_is_resumed_with_the_model_that_calls_it() -> None:
    command = COMMANDS["image-tokens"] + EVERY
    output_of(f"{command} --out whole")
    for name, resume in (("one", "runs resume train-one"), ("two", f"{command} --out two")):
        with dying(5, is_codec):
            assert call(f"{command} --out {name}").exit_code != 0
        with run_of(f"train-{name}") as (journal, run):
            assert (run.status, run.tick) == ("new", 0)
            inner = journal.get(f"train-{name}-codes")
            assert (inner.kind, inner.status) == ("train image-codec", "interrupted")
            assert inner.caller == (run.id, "codes")
        assert "Resuming from step 4." in output_of(resume)
        assert weights(name) == weights("whole")


def test_an_interrupted_autoencoder_is_resumed_by_the_run_that_calls_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    say = progress.TrainingView._say_step

    def interrupting(view: Any, position: int, report: Any, note: str = "") -> None:
        os.kill(os.getpid(), signal.SIGINT)
        say(view, position, report, note)

    with monkeypatch.context() as patch:
        patch.setattr(progress.TrainingView, "_say_step", interrupting)
        result = call(f"{COMMANDS['image-tokens']} --out made")
    assert result.exit_code == 130
    assert result.output.endswith("To resume: ostinato runs resume train-made\n")
    assert "Saved in made (run train-made)." in output_of("runs resume train-made")


def test_a_model_is_not_trained_on_with_another_autoencoder() -> None:
    command = f"{COMMANDS['image-tokens']} --out made"
    output_of(f"{command} --until Steps(2)")
    output_of("runs resume train-made-codes --until 'Steps(40)'")
    for line in (command, "runs resume train-made --until 'Steps(4)'"):
        assert "but the hash of the autoencoder was" in refused(InputError, line)


def test_a_fresh_model_has_a_fresh_autoencoder() -> None:
    command = f"{COMMANDS['image-tokens']} --out made"
    output_of(command)
    changed = command.replace("--codec-steps 6", "--codec-steps 4")
    assert "--codec-steps was 6, is 4" in refused(InputError, changed)
    output_of(f"{changed} --fresh")
    with run_of("train-made-codes") as (_, run):
        assert run.tick == 4
