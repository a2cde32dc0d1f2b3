"""Runs that sample: built from their record, killed and resumed, branched, compared by field."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image
from test_unet import shaken

from ostinato.adversarial import GanConfig, Generator, SampleGanRun, save_generator
from ostinato.cli.main import cli
from ostinato.errors import InputError, OstinatoError, RunError
from ostinato.image import Images, ImageWork, SampleImageRun, save_denoiser
from ostinato.image.tokens import (
    VQ,
    Attributes,
    ImageTokensWork,
    SampleImageTokensRun,
    VQConfig,
    new_image_token_model,
)
from ostinato.image.tokens.attributes import Thresholds
from ostinato.image.vae import VAE, SampleVaeRun, VAEConfig
from ostinato.journal import Journal, RunConfig, config_to_json
from ostinato.music import (
    MusicWork,
    SampleMusicRun,
    Score,
    music_model,
    score_text,
    write_midi,
)
from ostinato.runs import amend, branch, build, build_config, config_of, record
from ostinato.train import save_model

try:
    import diffusers  # noqa: F401
    from tiny_pipelines import stable_diffusion

    from ostinato.image.pipelines import SamplePipelineRun
except ImportError:
    stable_diffusion = None  # type: ignore[assignment]
TUNE = Score(((67, 64, 60, 48), (69, 65, 60, 53), (67, 62, 59, 43), (67, 64, 60, 48)))
pipelines = pytest.mark.skipif(stable_diffusion is None, reason="without diffusers")


@dataclass(frozen=True)
class Kind:
    """A command with its model in the folder `models`, its file, and what makes another run."""

    words: tuple[str, ...]
    out: str
    other: tuple[str, ...]
    told: str  # of `other`
    added: str  # a field with a default, which an older record lacks


KINDS = {
    "image": Kind(
        ("image", "models/image", "--label", "dog", "--count", "2", "--steps", "6"),
        "made.png",
        ("--solver", "heun"),
        "--solver was dpmpp_2m, is heun",
        "interpolate_to",
    ),
    "tokens": Kind(
        ("image-tokens", "models/tokens", "--prompt", "two", "--count", "2", "--steps", "6"),
        "made.png",
        ("--temperature", "0.5"),
        "--temperature was 1.0, is 0.5",
        "seed",
    ),
    "music": Kind(
        ("music", "models/music", "--start", "models/tune.mid"),
        "made.mid",
        ("--key", "G minor"),
        "--key was C major, is G minor",
        "melody",
    ),
    "gan": Kind(
        ("gan", "models/gan", "--label", "dog", "--count", "96"),
        "made.png",
        ("--interpolate-to", "9"),
        "--interpolate-to was none, is 9",
        "interpolate_to",
    ),
    "vae": Kind(
        ("vae", "models/vae", "--label", "dog", "--count", "96"),
        "made.png",
        ("--interpolate-to", "9"),
        "--interpolate-to was none, is 9",
        "unit",
    ),
    "pipeline": Kind(
        ("image", "models/pipeline", "--prompt", "a cat", "--steps", "6"),
        "made.gif",
        ("--guidance", "2"),
        "--guidance was none, is 2.0",
        "negative_prompt",
    ),
}
QUICK = ("image", "tokens", "music", "gan", "vae")
EACH_KIND = pytest.mark.parametrize(
    "name", [*QUICK, pytest.param("pipeline", marks=[pipelines, pytest.mark.slow])]
)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Untrained models of all kinds."""
    folder = tmp_path_factory.mktemp("models")
    save_denoiser(folder / "image", shaken(classes=2, names=("cat", "dog")))
    three = (Thresholds(0.5, 0.1), Thresholds(2.0, 1.0), Thresholds(5.0, 3.0))
    codec = VQ(VQConfig(size=8, halvings=1, width=16))
    words = Attributes(("two",), three)
    small = {"layers": 1, "width": 16, "heads": 1}
    new_image_token_model("unmask", codec, words, **small).save(folder / "tokens")
    music = music_model(**small)
    save_model(folder / "music", music.llama(), music.tokenizer)
    write_midi(TUNE, folder / "tune.mid")
    shape = GanConfig(size=8, classes=2, names=("cat", "dog"), latent=4, widths=(4,), features=8)
    save_generator(folder / "gan", Generator(shape))
    autoencoder = VAE(VAEConfig.for_images(1, 8, width=16, latent=4))
    pixels = torch.arange(32 * 64).view(32, 1, 8, 8) * 7 % 251
    images = Images(pixels.to(torch.uint8), torch.arange(32) % 2, ("cat", "dog"))
    autoencoder.fit_prior(images, 2)
    autoencoder.save(folder / "vae")
    if stable_diffusion is not None:
        stable_diffusion(folder / "pipeline")
    return folder


@pytest.fixture
def folder(models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a working folder with the models in it, as a user has it."""
    shutil.copytree(models, tmp_path / "work" / "models")
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "work"


def call(*words: str) -> Result:
    return CliRunner().invoke(cli, words, catch_exceptions=False)


def sample(name: str, *more: str) -> Result:
    return call("sample", *KINDS[name].words, *more)


def files(out: str) -> list[bytes]:
    """Return the contents of the files that were written; several pieces are numbered."""
    path = Path(out)
    found = sorted(path.parent.glob(f"{path.stem}*{path.suffix}"))
    return [each.read_bytes() for each in found]


def config_of_kind(name: str) -> RunConfig:
    """Return the configuration in Python, as its command makes it but for the hashes."""
    out, models = Path(KINDS[name].out), Path("models").absolute()
    match name:
        case "image":
            model = str(models / "image")
            return SampleImageRun(model=model, out=out, labels=("dog",), count=2, steps=6)
        case "tokens":
            model = str(models / "tokens")
            return SampleImageTokensRun(model=model, out=out, prompts=("two",), count=2, steps=6)
        case "music":
            model, start = str(models / "music"), score_text(TUNE)
            return SampleMusicRun(model=model, outs=(out,), start=start)
        case "gan":
            model = str(models / "gan")
            return SampleGanRun(model=model, out=out, labels=("dog",), count=96)
        case "vae":
            model = str(models / "vae")
            return SampleVaeRun(model=model, out=out, labels=("dog",), count=96)
        case _:
            model = str(models / "pipeline")
            return SamplePipelineRun(model=model, out=out, prompts=("a cat",), steps=6)


@EACH_KIND
def test_python_builds_a_recorded_run_and_writes_what_the_command_does(
    name: str, folder: Path
) -> None:
    out = KINDS[name].out
    assert sample(name, "--out", f"typed-{out}", "--no-journal").exit_code in (0, 1)
    assert not Path(".ostinato").exists()
    config = config_of_kind(name)
    with Journal() as journal:
        record(journal, config, name="mine")
        work = build(journal.get("mine"))
        work.loop.run()
        work.finish()  # from the journal: nothing watched
    written = files(out)
    assert written and written == files(f"typed-{out}")
    for path in Path().glob(f"made*{Path(out).suffix}"):
        path.unlink()
    unrecorded = build_config(config)
    unrecorded.loop.run(unrecorded.watch)
    unrecorded.finish()
    assert files(out) == written


@EACH_KIND
def test_a_run_is_recorded_by_default_and_shown_again_without_sampling(
    name: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = KINDS[name].out
    sample(name, "--out", out)
    with Journal() as journal:
        (run,) = journal.runs()
        assert run.kind == config_of_kind(name).kind
        assert run.name.startswith(run.kind.replace(" ", "-"))
        recorded = run.name
    typed = files(out)
    for path in Path().glob(f"made*{Path(out).suffix}"):
        path.unlink()
    monkeypatch.setattr("ostinato.loop.Lanes.step", None)
    again = sample(name, "--out", out, "--run", recorded, "--json")
    assert json.loads(again.stdout.splitlines()[-1])
    assert files(out) == typed
    assert call("runs", "resume", recorded).exit_code == again.exit_code
    assert files(out) == typed


@EACH_KIND
def test_a_run_of_another_configuration_is_refused_field_by_field(name: str, folder: Path) -> None:
    kind = KINDS[name]
    sample(name, "--out", kind.out, "--run", "mine")
    before = files(kind.out)
    with pytest.raises(InputError, match="must keep the configuration it started with") as raised:
        sample(name, "--out", kind.out, "--run", "mine", *kind.other, "--seed", "3")
    assert kind.told in str(raised.value) and "--seed was 0, is 3" in str(raised.value)
    assert files(kind.out) == before
    with Journal() as journal:
        run = journal.get("mine")
        written = config_to_json(config_of(run), folder)
        del written[kind.added]  # as an older version recorded it
        journal.amend(run, {"config": written})
    assert sample(name, "--out", kind.out, "--run", "mine").exit_code in (0, 1)
    assert files(kind.out) == before


@EACH_KIND
def test_a_branch_writes_files_of_its_own(name: str, folder: Path) -> None:
    out = KINDS[name].out
    sample(name, "--out", out, "--run", "mine")
    before = files(out)
    for path in Path().glob(f"made*{Path(out).suffix}"):
        path.unlink()
    with Journal() as journal:
        branch(journal, journal.get("mine"), "other")
    assert call("runs", "resume", "other").exit_code in (0, 1)
    assert files(f"other{Path(out).suffix}") == before
    assert not files(out)


KILL = """
import os, signal, torch
from ostinato.cli.main import cli
from ostinato.loop import Lanes

step, taken = Lanes.step, 0

def killed(lanes):
    global taken
    taken += 1
    if taken == 5:
        os.kill(os.getpid(), signal.SIGKILL)
    return step(lanes)

Lanes.step = killed
for words in {commands!r}:
    if not os.fork():
        try:
            cli(words)
        finally:
            os._exit(9)
    assert os.waitstatus_to_exitcode(os.wait()[1]) == -signal.SIGKILL, words
"""


Killed = Callable[[str], Path]


@pytest.fixture(scope="module")
def killed(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Killed:
    """Return the function that returns a folder in which a run was killed at its fifth step."""

    @cache
    def folder_of(names: tuple[str, ...]) -> Path:
        work = tmp_path_factory.mktemp("killed")
        shutil.copytree(models, work / "models")
        commands = [
            ["sample", *KINDS[name].words, "--out", f"{name}-{KINDS[name].out}", "--run", name]
            for name in names
        ]
        # A process of its own, which imports torch once and forks for each command.
        script = KILL.format(commands=commands)
        subprocess.run([sys.executable, "-c", script], cwd=work, check=True)
        return work

    return lambda name: folder_of(("pipeline",) if name == "pipeline" else QUICK)


@EACH_KIND
@pytest.mark.parametrize(
    "way", ["by its name", pytest.param("by its command", marks=pytest.mark.slow)]
)
def test_a_killed_run_resumes_to_the_same_bytes(
    name: str, way: str, killed: Killed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(killed(name), tmp_path / "moved")
    monkeypatch.chdir(tmp_path / "moved")
    out = f"{name}-{KINDS[name].out}"
    assert not files(out)
    if way == "by its name":
        assert call("runs", "resume", name).exit_code in (0, 1)
    else:
        assert sample(name, "--out", out, "--run", name).exit_code in (0, 1)
    whole = f"whole-{KINDS[name].out}"
    sample(name, "--out", whole, "--no-journal")
    assert files(out) and files(out) == files(whole)


# What images alone have ---------------------------------------------------------------------------


def test_other_weights_are_refused_however_a_run_is_resumed(folder: Path) -> None:
    sample("image", "--out", "made.png", "--run", "mine")
    save_denoiser(Path("models/image"), shaken(classes=2, names=("cat", "dog"), blocks=2))
    with pytest.raises(InputError, match=r"but model \(its files have changed\) was"):
        sample("image", "--out", "made.png", "--run", "mine")
    with pytest.raises(RunError, match="The model's files must be as they were when the run"):
        call("runs", "resume", "mine")


def test_an_image_to_vary_is_known_by_its_pixels_wherever_it_lies(folder: Path) -> None:
    Image.new("L", (8, 8), 90).save("start.png")
    sample("image", "--from", "start.png", "--out", "made.png", "--run", "mine")
    before = files("made.png")
    Path("start.png").rename("moved.png")
    assert (
        sample("image", "--from", "moved.png", "--out", "made.png", "--run", "mine").exit_code == 0
    )
    assert files("made.png") == before
    Image.new("L", (8, 8), 91).save("moved.png")
    with pytest.raises(InputError, match=r"but --from \(its pixels\) was"):
        sample("image", "--from", "moved.png", "--out", "made.png", "--run", "mine")
    with pytest.raises(RunError, match=r"The pixels of .*moved.png must be as they were"):
        call("runs", "resume", "mine")


@pipelines
def test_steps_of_a_pipeline_can_be_shown_later(folder: Path) -> None:
    sample("pipeline", "--out", "at-once.png", "--show-steps", "--no-journal")
    sample("pipeline", "--out", "made.png", "--run", "mine")
    assert sample("pipeline", "--out", "later.png", "--run", "mine", "--show-steps").exit_code == 0
    assert files("later.png") == files("at-once.png")


@pipelines
def test_weights_of_a_variant_are_told(folder: Path) -> None:
    unet = Path("models/pipeline/unet")
    (unet / "diffusion_pytorch_model.safetensors").rename(
        unet / "diffusion_pytorch_model.fp16.safetensors"
    )
    made = sample("pipeline", "--out", "made.png")
    assert "The weights of unet are those of the variant fp16." in made.stderr


def test_a_run_of_an_older_version_is_refused_with_a_way_on(folder: Path) -> None:
    with Journal() as journal:
        journal.create("mine", kind="Lanes", spec={"sample": "image", "order": {"count": "1"}})
    with pytest.raises(OstinatoError, match=r"The run 'mine' must .* another name"):
        sample("image", "--out", "made.png", "--run", "mine")


def test_bad_input_leaves_no_journal(folder: Path) -> None:
    with pytest.raises(InputError, match="A label must be one of cat, dog"):
        sample("image", "--out", "made.png", "--label", "bird")
    assert not Path(".ostinato").exists()


def test_nothing_is_written_before_the_loop_has_run(folder: Path) -> None:
    for name in ("image", "tokens", "music"):
        work = build_config(config_of_kind(name))
        assert isinstance(work, ImageWork | ImageTokensWork | MusicWork)
        with pytest.raises(RunError, match=r"work\.loop\.run\(work\.watch\)"):
            work.finish()


def test_the_drafts_of_a_piece_are_explained(folder: Path) -> None:
    sample("music", "--out", "made.mid", "--run", "mine", "--until-passes", "--rounds", "1")
    told = call("why", "mine", "0001")
    assert told.exit_code == 0 and "round 1" in told.output


def test_the_files_of_a_branch_of_two_formats_are_apart() -> None:
    config = SampleMusicRun(outs=(Path("a.mid"), Path("b.mid"), Path("c.wav")))
    assert config.branched("x").outs == (Path("x-a.mid"), Path("x-b.mid"), Path("x.wav"))


def test_a_free_field_is_recorded_anew(folder: Path) -> None:
    sample("image", "--out", "made.png", "--run", "mine")
    sample("image", "--out", "other.png", "--run", "mine")
    with Journal() as journal:
        config = config_of(journal.get("mine"))
        assert isinstance(config, SampleImageRun)
        assert config.out == folder / "other.png"
        amend(journal, journal.get("mine"), replace(config, out=folder / "third.png"))
    call("runs", "resume", "mine")
    assert Path("third.png").exists()


@pytest.mark.parametrize(
    ("command", "message"),
    {
        "generate hi --repetition-penalty 0": "--repetition-penalty must be a number",
        "fill a___ --model m --temperature -1": "--temperature must be a number",
        f"sample image digits --seed {1 << 63}": "--seed must be a whole number",
        "sample image-tokens models/tokens --out a.gif": "--out must be a .png file",
        "sample music --out a.mid --tempo 5": "--tempo must be 10 to 400",
        "train text README.md --out README.md --from README.md": "--out must be a folder",
    }.items(),
)
def test_a_value_out_of_range_is_told_by_its_option(
    command: str, message: str, folder: Path
) -> None:
    (folder / "README.md").write_text("")
    with pytest.raises(InputError) as raised:
        call(*command.split())
    assert str(raised.value).startswith(message)
