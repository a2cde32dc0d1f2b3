"""`ostinato train image`: train a denoiser on images until it is good enough."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ostinato.cli.train.options import (
    SETTINGS,
    RunOptions,
    image_settings,
    image_source_options,
    training_options,
)
from ostinato.cli.train.training_run import TrainingJob, train_until
from ostinato.errors import InputError

if TYPE_CHECKING:
    from ostinato.loop import Step


@click.command()
@image_source_options
@click.option(
    "--classes/--unconditional",
    default=None,
    help="Condition on the classes.  [default: if there are any]",
)
@click.option(
    "--channels", type=int, default=32, help="Base channels of the U-Net; a multiple of 16."
)
@click.option("--blocks", type=int, default=1, help="Residual blocks per level of the U-Net.")
@click.option(
    "--label-dropout",
    type=float,
    default=0.1,
    help="Probability of dropping the label in training (classifier-free guidance).",
)
@training_options(image_settings(SETTINGS))
def image(
    sources: tuple[str, ...],
    size: int | None,
    gray: bool | None,
    hold_out: float,
    classes: bool | None,
    channels: int,
    blocks: int,
    label_dropout: float,
    options: RunOptions,
) -> None:
    """Train a denoiser on images: a FOLDER of files, `digits-8x8`, or IDX files (MNIST's).

    The sub-folders of FOLDER are classes. `digits-8x8` are the 1,797 scans of scikit-learn.
    A grid of samples is written to OUT/samples during the training.
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
    from ostinato.image import hold_out as split

    noise = NoiseLevels(label_dropout=label_dropout)
    config = dataclasses.replace(RECIPE, **options.settings)
    images = read_images(sources, size=size, gray=gray)
    if classes and images.labels is None:
        raise InputError(
            "--classes needs images with classes. Put them into sub-folders, give a file of "
            "labels, or give --unconditional."
        )
    if classes is False:  # None: the option was not typed
        images = images.without_classes()
    train, valid = split(images, hold_out, seed=config.seed)
    if channels < 16 or channels % 16:
        raise InputError(f"--channels must be a multiple of 16, got {channels}.")
    network = UNet(shape_for(images, width=channels, blocks=blocks), seed=config.seed)
    train_until(
        TrainingJob(
            command="image",
            network=network,
            task=ImageTask(train, valid, noise=noise, sampler=preview),
            config=config,
            fingerprint=repr((images.fingerprint(), network.config, noise, hold_out)),
            examples=(len(train), len(valid)),
            folder=options.out,
            save=lambda: save_denoiser(options.out, network),
            show=lambda step: _show(step, options.out / "samples", network.size),
        ),
        options,
    )


def _show(step: Step, folder: Path, side: int) -> None:
    """Write the sample of a step, a grid of images of `side` pixels, as a PNG."""
    from ostinato.media import image_io

    pixels: Any = step.report["sample"]  # (C, H, W), bytes
    path = folder / f"step-{step.position:06}.png"
    image_io.save(pixels / 127.5 - 1, path, side=side)
    click.echo(f"  samples: {path}")
