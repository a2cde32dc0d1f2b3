"""The variational autoencoder: training, files, and images of its points."""

from __future__ import annotations

import math
import shlex
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image

from ostinato.cli.main import cli
from ostinato.errors import EditError, InputError, ModelError, RunError
from ostinato.image import Images, ImageWork, hold_out
from ostinato.image.tokens import VQ
from ostinato.image.vae import (
    VAE,
    DecodePoints,
    Point,
    SampleVaeRun,
    VAEConfig,
    VaeTask,
    vae_digest,
)
from ostinato.image.vae.task import nats
from ostinato.journal import Journal
from ostinato.loop import Loop, Steps
from ostinato.runs import build, build_config
from ostinato.testing import check_lane_process, check_process
from ostinato.train import Training, TrainingConfig


def bars() -> Images:
    """Return images of a bar whose place and brightness differ; of 30 it is dark."""
    pixels = torch.zeros(60, 1, 8, 8)
    for n in range(60):
        pixels[n, :, n % 6 : n % 6 + 2] = 120 + 2 * n
    return Images(pixels.to(torch.uint8), torch.arange(60) // 30, ("low", "high"))


def config() -> VAEConfig:
    return VAEConfig.for_images(1, 8, width=16, latent=4)


def training(beta: float = 1.0, free_bits: float = 0.0, **plan: object) -> Training:
    train, valid = hold_out(bars(), 0.2)
    settings: dict[str, object] = {
        "steps": 60,
        "batch_tokens": 16,
        "optimizer": "adamw",
        "lr": 0.005,
        "warmup_steps": 2,
        "valid_every": 60,
        "sample_every": 0,
    }
    plan = settings | plan
    task = VaeTask(train, valid, beta=beta, free_bits=free_bits)
    settled = TrainingConfig(**plan)  # type: ignore[arg-type]
    return Training(VAE(config(), seed=settled.seed), task, settled)


def last(beta: float = 1.0, free_bits: float = 0.0) -> dict[str, float]:
    reports: list[dict[str, float]] = []
    loop = Loop(training(beta, free_bits), until=Steps(60))
    loop.run(lambda step: reports.append(dict(step.report)))  # type: ignore[arg-type]
    return reports[-1]


def test_a_training_conforms() -> None:
    check_process(lambda: training(valid_every=2), steps=5, cuts=(0, 3))


def test_a_collapse_is_seen_and_free_bits_prevent_it() -> None:
    healthy, collapsed, rescued = last(), last(beta=2000.0), last(beta=2000.0, free_bits=0.5)
    assert healthy["active_units"] >= 1 and healthy["kl/valid"] > 1
    assert collapsed["active_units"] == 0 and collapsed["kl/valid"] < 0.1
    assert rescued["kl/valid"] > 1
    assert healthy["deviation/valid"] < 0.8 * collapsed["deviation/valid"]


def test_the_loss_is_the_likelihood_at_the_best_deviation() -> None:
    squares, count = torch.tensor(3.0, requires_grad=True), 50
    found = nats(squares, count)
    # A pixel's level has about the density over [-1, 1] times the width of a level.
    variances = torch.linspace(0.01, 0.2, 2000)
    normal = count * (2 * math.pi * variances).log() / 2 + 3.0 / (2 * variances)
    tried = normal + count * math.log(127.5)
    assert abs(float(found.detach()) - float(tried.min())) < 1e-2
    found.backward()  # type: ignore[no-untyped-call]
    assert squares.grad is not None and abs(float(squares.grad) - count / 6) < 1e-4
    assert math.isfinite(float(nats(torch.tensor(0.0), count)))


def test_a_validation_does_not_depend_on_beta_nor_on_the_batches() -> None:
    one = training(beta=1.0)
    other = training(beta=9.0, batch_tokens=5)
    a, b = one.validate(), other.validate()
    assert a["kl/valid"] == pytest.approx(b["kl/valid"], rel=1e-5)
    assert a["loss/valid"] == pytest.approx(a["reconstruction/valid"] + a["kl/valid"])
    assert a["bits_per_dim"] == pytest.approx(a["loss/valid"] / 64 / math.log(2))
    assert training(beta=9.0).validate() == a


def test_beta_and_free_bits_are_edited_and_saved_with_the_training() -> None:
    process = training(beta=8.0)
    process.change({"beta_scale": 0.25, "free_bits": 0.2})
    other = training(beta=8.0)
    other.load_state_dict(process.state_dict())
    assert isinstance(other.task, VaeTask)
    assert (other.task.beta, other.task.free_bits) == (2.0, 0.2)
    with pytest.raises(EditError, match="beta must be a number of 0 or more, got -1"):
        process.change({"beta": -1})


def test_a_saved_model_has_the_same_bits_and_is_no_other_kind(tmp_path: Path) -> None:
    network = VAE(config(), seed=3)
    network.save(tmp_path)
    loaded, pixels = VAE.load(tmp_path), bars().pixels
    assert torch.equal(loaded.encode(pixels), network.encode(pixels))
    points = network.encode(pixels[:5])
    assert torch.equal(network.decode(points)[3:4], loaded.decode(points[3:4]))
    with pytest.raises(ModelError):
        VQ.load(tmp_path)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("vae")
    process = training()
    Loop(process, until=Steps(40)).run()
    network = process.network.eval()
    assert isinstance(network, VAE)
    network.fit_prior(bars(), 2)
    network.save(folder / "model")
    for n in (3, 40):
        Image.fromarray(bars().pixels[n, 0].numpy()).save(folder / f"{n}.png")
    return folder


def call(line: str) -> Result:
    return CliRunner().invoke(cli, shlex.split(line))


def images_of(line: str) -> list[bytes]:
    result = call(f"{line} --out drawn")
    assert result.exit_code == 0, (result.output, result.exception)
    return [path.read_bytes() for path in sorted(Path("drawn").glob("*.png"))]


def test_images_are_sampled_reconstructed_interpolated_and_walked(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    sample, one, two = (
        f"sample vae {model / 'model'} --no-journal",
        model / "3.png",
        model / "40.png",
    )
    drawn = images_of(f"{sample} --count 4")
    assert len(set(drawn)) == 4
    pair = images_of(f"{sample} --from {one} --from {two}")[:4]
    assert pair[0] != pair[2]
    path = images_of(f"{sample} --from {one} --from {two} --count 4")
    assert [path[0], path[3]] == pair[2:]  # from one reconstruction to the other
    between = images_of(f"{sample} --seed 1 --interpolate-to 2 --count 4")
    assert between[0] == drawn[1] and between[3] == drawn[2]
    labels = images_of(f"{sample} --label low --label high --count 2")
    assert len(set(labels)) == 4 and labels[2:] == images_of(f"{sample} --label 1 --count 2")[:2]
    assert len(set(images_of(f"{sample} --walk 1 --count 4 --from {one}"))) > 1


def test_a_sampling_run_is_built_from_its_record(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    line = f"sample vae {model / 'model'} --from {model / '3.png'} --out a.png --run mine"
    assert call(line).exit_code == 0
    before = Path("a.png").read_bytes()
    Path("a.png").unlink()
    with Journal() as journal:
        work = build(journal.get("mine"))
        assert isinstance(work, ImageWork)
        work.loop.run(work.watch)
        work.finish()
    assert Path("a.png").read_bytes() == before


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ("--from {one} --count 3", "--count must come with two --from"),
        ("--from {one} --interpolate-to 2 --count 3", "given without --from"),
        ("--walk 1", "must come with --count"),
        ("--walk 9 --count 3", "unit must be 0 to 3"),
        ("--walk 1 --interpolate-to 2 --count 3", "Only one of"),
        ("--from nowhere.png", "must be an image file"),
        ("--from {one} --label low", "--label must be given without --from"),
        ("--label none", "A label must be one of low, high, got 'none'"),
    ],
)
def test_wrong_options_are_refused(model: Path, options: str, told: str) -> None:
    options = options.format(one=model / "3.png")
    error = call(f"sample vae {model / 'model'} --no-journal --out x.png {options}").exception
    assert isinstance(error, InputError) and told in str(error)
    assert not Path("x.png").exists()


def test_a_folder_of_another_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="A variational autoencoder must be a folder with"):
        vae_digest(tmp_path)


def test_an_image_that_changed_is_refused(model: Path) -> None:
    run = SampleVaeRun(
        model=str(model / "model"),
        out=Path("x.png"),
        show="reconstructions",
        images=(str(model / "3.png"),),
        contents=("0" * 64,),
    )
    with pytest.raises(RunError, match="pixels of"):
        build_config(run)


def test_a_decoded_point_is_the_same_in_any_company() -> None:
    network = VAE(VAEConfig(size=8, halvings=1, width=16, latent=3), seed=0)
    points = {f"{n}": Point(at=(0.5 * n, -1.0, 2.0)) for n in range(3)}
    check_lane_process(lambda slots: DecodePoints(network, slots=slots), points)
