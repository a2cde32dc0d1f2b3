"""`ostinato sample image --run` killed with SIGKILL at random steps: the same files in the end."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner
from test_unet import shaken

from ostinato.cli.main import cli
from ostinato.image import save_denoiser
from ostinato.journal import Journal

STEPS = 12
CHILD = """
import importlib, os, signal, sys
from ostinato.cli.main import cli

module, name, at, *arguments = sys.argv[1:]
process = getattr(importlib.import_module(module), name)
step, taken = process.step, 0

def killed(self):
    global taken
    taken += 1
    if taken == int(at):
        os.kill(os.getpid(), signal.SIGKILL)
    return step(self)

process.step = killed
cli(arguments)
"""
DENOISE = ("ostinato.image.denoise", "Denoise")
PIPELINE = ("ostinato.image.pipelines.process", "DenoisePipeline")


@pytest.fixture
def color(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return a model of images of 64 x 64 in color."""
    monkeypatch.chdir(tmp_path)
    save_denoiser(tmp_path / "color", shaken(channels=3, size=64))
    return "color"


def kill(process: tuple[str, str], at: int, arguments: tuple[str, ...]) -> None:
    """Run the command in a process that is killed in its `at`-th step."""
    command = [sys.executable, "-c", CHILD, *process, str(at), "sample", "image", *arguments]
    done = subprocess.run(command, capture_output=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()[-2000:]


def drawn(arguments: tuple[str, ...], out: str) -> bytes:
    result = CliRunner().invoke(
        cli, ["sample", "image", *arguments, "--out", out], catch_exceptions=False
    )
    assert result.exit_code == 0, result.output
    return Path(out).read_bytes()


def same_after_kills(
    process: tuple[str, str], kills: list[int], arguments: tuple[str, ...], out: str = "a.png"
) -> None:
    """Check a run that is killed in these steps of its processes, each after the one before."""
    whole = drawn(arguments, f"whole-{out}")
    run = (*arguments, "--run", "killed", "--checkpoint-every", "3")
    for at in kills:
        kill(process, at, (*run, "--out", f"none-{out}"))
    assert drawn(run, f"resumed-{out}") == whole
    with Journal() as journal:
        found = journal.get("killed")
        assert "differs" not in [event.name for event in found.events()]
        content = sum(row.bytes for row in found.artifacts())
        saved = sum(row.bytes for row in found.checkpoints())
        assert found.status == "stopped" and saved < content / 2


def random_steps(seed: int, kills: int) -> list[int]:
    rng = random.Random(seed)
    # A process resumes at the last third step: with 4 it takes at least one step more each time.
    return [rng.randint(4, 5) for _ in range(kills)]


@pytest.mark.slow
def test_a_color_image_that_is_killed_once_is_the_same(color: str) -> None:
    same_after_kills(DENOISE, [random.Random(1).randint(2, 4)], (color, "--steps", "4"))


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("out", "more"),
    [
        ("a.png", ("--show-steps",)),
        ("a.gif", ()),
        ("a.png", ("--solver", "heun")),
        ("a.png", ("--solver", "ddpm", "--count", "2")),
    ],
    ids=str,
)
def test_color_images_that_are_killed_at_random_steps_are_the_same(
    color: str, out: str, more: tuple[str, ...]
) -> None:
    arguments = (color, "--steps", str(STEPS), *more)
    same_after_kills(DENOISE, random_steps(len(out + str(more)), 3), arguments, out)


@pytest.fixture
def pipeline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    pytest.importorskip("diffusers")
    pytest.importorskip("transformers")
    from tiny_pipelines import stable_diffusion

    monkeypatch.chdir(tmp_path)
    make: Callable[[Path], object] = stable_diffusion
    make(tmp_path / "pipeline")
    return "pipeline"


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("more", [(), ("--show-steps",)], ids=str)
def test_so_are_those_of_a_pipeline_their_latents_and_decoded_pictures(
    pipeline: str, more: tuple[str, ...]
) -> None:
    size = ("--height", "64", "--width", "64", "--prompt", "a cat")
    arguments = (pipeline, *size, "--steps", "8", "--count", "2", *more)
    same_after_kills(PIPELINE, random_steps(3, 2), arguments)
