"""`ostinato train image`: train a denoiser on images until it is good enough."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import click

from ostinato.cli.train import progress
from ostinato.cli.train.options import (
    SETTINGS,
    TrainingOptions,
    image_settings,
    image_source_options,
    training_options,
)

if TYPE_CHECKING:
    from ostinato.cli.presenters import View
    from ostinato.cli.run_loop import Exit
    from ostinato.journal import RunSource
    from ostinato.loop import Step
    from ostinato.train import TrainingRun, TrainingWork


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
def image(sources: tuple[str, ...], options: TrainingOptions, **task: Any) -> None:
    """Train a denoiser on images: a FOLDER of files, `digits-8x8`, or IDX files (MNIST's).

    The sub-folders of FOLDER are classes. `digits-8x8` are the 1,797 scans of scikit-learn.
    A grid of samples is written to OUT/samples during the training.
    """
    from ostinato.image import RECIPE, ImageTrainingRun, image_places, prepare_image_training

    config = ImageTrainingRun(
        **options.run_fields(),
        sources=sources,
        training=dataclasses.replace(RECIPE, **options.settings),
        **task,
    )
    parts = prepare_image_training(config)
    config = dataclasses.replace(config, sources=image_places(sources))
    progress.train_until(config, options, parts, show=_show, parts=parts)


def present(config: TrainingRun, run: RunSource | None, view: View) -> Exit:
    """Train a denoiser, and write samples into its folder."""
    return progress.present(config, run, view, show=_show)


def _show(step: Step, work: TrainingWork) -> str:
    """Write the sample of a step, a grid of images, as a PNG; return the line about it."""
    from ostinato.media import image_io

    pixels: Any = step.report["sample"]  # (C, H, W), bytes
    path = work.config.out / "samples" / f"step-{step.position:06}.png"
    network: Any = work.process.network
    image_io.save(pixels / 127.5 - 1, path, side=network.size)
    return f"  samples: {progress.near(path)}"
