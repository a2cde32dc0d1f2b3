"""`ostinato train image`: train a denoiser on images until it is good enough."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ostinato.cli.train.shared import (
    OPTIONS,
    begun_steps,
    condition_of,
    config_options,
    drive,
    journal_at,
    name_of,
    require_folder,
    run_of,
    run_options,
    steps_of,
)
from ostinato.errors import InputError

if TYPE_CHECKING:
    from ostinato.loop import Step
    from ostinato.train import Training

IMAGE_OPTIONS = {
    "batch_size" if name == "batch_tokens" else name: (kind, text)
    for name, (kind, text) in OPTIONS.items()
} | {
    "batch_size": (click.IntRange(min=1), "Images of a batch."),
    "seed": (int, "Seed of the order, the network, the noise and what is held out."),
}
TIMED = 5  # steps by which the speed is measured for --seconds


@click.command()
@click.argument("sources", nargs=-1, required=True, metavar="FOLDER|digits|IDX-FILE…")
@click.option(
    "--out", required=True, type=click.Path(path_type=Path), help="Write the denoiser there."
)
@click.option("--size", type=int, help="Scale to this side, 8 to 64; else as the images are.")
@click.option(
    "--gray/--color", default=None, help="One channel or three; else gray if all images are."
)
@click.option(
    "--classes/--unconditional", default=None, help="Learn the classes; else if there are any."
)
@click.option("--hold-out", type=float, default=0.1, show_default=True, help="Share to validate.")
@click.option(
    "--channels", type=int, default=32, show_default=True, help="Channels, 16 times so many."
)
@click.option("--blocks", type=int, default=1, show_default=True, help="Blocks of each level.")
@click.option(
    "--label-dropout", type=float, default=0.1, show_default=True, help="Share without class."
)
@click.option("--seconds", type=float, help="End after so many; the rate is planned by the speed.")
@run_options
@config_options(IMAGE_OPTIONS)
def image(
    sources: tuple[str, ...],
    out: Path,
    size: int | None,
    gray: bool | None,
    classes: bool | None,
    hold_out: float,
    channels: int,
    blocks: int,
    label_dropout: float,
    seconds: float | None,
    until: str | None,
    epochs: float | None,
    patience: int | None,
    checkpoint_every: int,
    fresh: bool,
    journal: Path | None,
    run_name: str | None,
    **given: Any,
) -> None:
    """Train a denoiser on images: a FOLDER of files, `digits`, or IDX files (MNIST's format).

    The sub-folders of FOLDER are classes. `digits` are the 1,797 scans that come with
    scikit-learn. A grid of samples is written to OUT/samples while it trains.
    """
    from ostinato.image import (
        RECIPE,
        ImageTask,
        NoiseLevels,
        UNet,
        preview,
        read_images,
        save_denoiser,
        shape_for,
    )
    from ostinato.image import hold_out as held
    from ostinato.train import Training

    require_folder(out)
    noise = NoiseLevels(label_dropout=label_dropout)
    given["batch_tokens"] = given.pop("batch_size")
    config = dataclasses.replace(RECIPE, **{k: v for k, v in given.items() if v is not None})
    condition_of(config.steps, until, epochs, patience, seconds)  # refused before any work
    images = read_images(sources, size=size, gray=gray)
    if classes and images.labels is None:
        raise InputError(
            "--classes needs images with classes. Put them into sub-folders, or give a file of "
            "labels, or take --unconditional."
        )
    if classes is False:
        images = images.without_classes()
    train, valid = held(images, hold_out, seed=config.seed)
    network = UNet(shape_for(images, width=channels, blocks=blocks), seed=config.seed)
    task = ImageTask(train, valid, noise=noise, draw=preview)
    if given["steps"] is None:
        steps = begun_steps(journal, name_of(run_name, out), fresh)
        if steps is None and epochs is not None:
            steps = steps_of(epochs, task.lengths, config)
        elif steps is None and seconds is not None:
            steps = _steps_in(
                seconds, Training(UNet(network.config, seed=config.seed), task, config)
            )
        config = dataclasses.replace(config, steps=steps or config.steps)
    settings = repr((images.fingerprint(), network.config, noise, hold_out))
    with journal_at(journal) as opened:
        process = Training(network, task, config)
        run = run_of(opened, "image", settings, dataclasses.asdict(config), out, fresh, run_name)

        def save() -> None:
            network.eval()
            with process.best_weights():
                save_denoiser(out, network)

        drive(
            process,
            run,
            condition_of(config.steps, until, epochs, patience, seconds),
            checkpoint_every,
            counts=(len(train), len(valid)),
            show=lambda step: _show(step, out / "samples"),
            save=save,
            out=out,
        )


def _steps_in(seconds: float, process: Training) -> int:
    """Return how many steps a training takes in so many seconds, by its speed just now."""
    process.step()
    began = time.perf_counter()
    for _ in range(TIMED):
        process.step()
    return max(1, int(seconds * TIMED / (time.perf_counter() - began)))


def _show(step: Step, folder: Path) -> None:
    """Write the sample of a step as a PNG."""
    from PIL import Image

    pixels: Any = step.report["sample"]
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"step-{step.position:06}.png"
    rows = pixels.permute(1, 2, 0).squeeze(-1).contiguous().numpy()
    Image.fromarray(rows).save(path)
    click.echo(f"  samples: {path}")
