"""`ostinato train image-tokens`: an autoencoder of images, then a model of its codes."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ostinato.cli.presenters import View
from ostinato.cli.train import progress
from ostinato.cli.train.options import (
    SEQUENCE_SETTINGS,
    TrainingOptions,
    image_settings,
    image_source_options,
    training_options,
)
from ostinato.errors import InputError

if TYPE_CHECKING:
    from ostinato.cli.run_loop import Exit
    from ostinato.image.tokens import CodecTrainingRun, ImageTokenTrainingRun
    from ostinato.journal import Run, RunSource


@click.command("image-tokens")
@image_source_options
@click.option(
    "--method",
    type=click.Choice(["row", "pixels", "unmask", "coarse"]),
    default="row",
    help="Order of generation: code by code, pixel by pixel, MaskGIT, or discrete diffusion.",
)
@click.option("--levels", type=int, help="Levels per channel, for --method pixels.  [default: 8]")
@click.option("--codec-steps", type=int, help="Training steps of the autoencoder.  [default: 400]")
@click.option(
    "--codec",
    type=click.Path(path_type=Path),
    help="Reuse the autoencoder of this model; its images must have the same shape.",
)
@click.option("--layers", type=int, default=4, help="Transformer layers.")
@click.option("--width", type=int, default=96, help="Hidden size.")
@click.option("--heads", type=int, default=3, help="Attention heads.")
@click.option(
    "--attribute-dropout",
    type=float,
    default=0.2,
    help="Probability of dropping each attribute in training.",
)
@training_options(image_settings(SEQUENCE_SETTINGS))
def image_tokens(
    sources: tuple[str, ...],
    levels: int | None,
    codec_steps: int | None,
    codec: Path | None,
    options: TrainingOptions,
    **task: Any,
) -> None:
    """Train a model that generates images token by token: first an autoencoder, then its codes.

    SOURCES are a FOLDER of images, `digits-8x8`, or IDX files. An image is described by its class
    and by measured attributes: slanted or upright, thick or thin, large or small. The options of
    the training, from --until on, are those of the second training.
    """
    from ostinato.image import image_places
    from ostinato.image.tokens import (
        RECIPE,
        ImageTokenTrainingRun,
        prepare_image_token_training,
    )

    _require_fitting(task["method"], levels, codec_steps, codec)
    typed = {"levels": levels, "codec_steps": codec_steps}
    task |= {name: value for name, value in typed.items() if value is not None}
    config = ImageTokenTrainingRun(
        **options.run_fields(),
        **task,
        sources=sources,
        training=dataclasses.replace(RECIPE, **options.settings),
        codec=codec or _recorded_codec(options),
    )
    data = prepare_image_token_training(config)
    config = dataclasses.replace(config, sources=image_places(sources))
    progress.train_until(config, options, data, prepared=data, drive=_codec_driver(View()))


def present(config: ImageTokenTrainingRun, run: RunSource | None, view: View) -> Exit:
    """Train the autoencoder if need be, then the model."""
    return progress.present(config, run, view, drive=_codec_driver(view))


def _codec_driver(view: View) -> Any:
    """Return what trains an autoencoder, and ends the command where it is interrupted."""

    def drive(config: CodecTrainingRun, run: RunSource | None, caller: Run | None) -> None:
        code = progress.present(config, run, view, caller=caller)
        if code:
            sys.exit(code)

    return drive


def _recorded_codec(options: TrainingOptions) -> Path | None:
    """Return the autoencoder of the run that is to be resumed: a branch has its parent's."""
    from ostinato.image.tokens import ImageTokenTrainingRun

    before = options.recorded()
    return before.codec if isinstance(before, ImageTokenTrainingRun) else None


def _require_fitting(
    method: str, levels: int | None, codec_steps: int | None, codec: Path | None
) -> None:
    """Raise `InputError` for an option without effect on the method."""
    if method == "pixels":
        for name, value in {"--codec": codec, "--codec-steps": codec_steps}.items():
            if value is not None:
                raise InputError(
                    f"{name} must be left out of --method pixels, got {value}: it has no "
                    "autoencoder."
                )
    elif levels is not None:
        raise InputError(
            f"--levels must be left out of --method {method}, got {levels}: it has codes."
        )
    if codec is not None and codec_steps is not None:
        raise InputError(
            f"--codec-steps must be left out with --codec, got {codec_steps}: that autoencoder is "
            "trained already."
        )
