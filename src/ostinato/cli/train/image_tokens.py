"""`ostinato train image-tokens`: an autoencoder of images, then a model of its codes."""

from __future__ import annotations

from typing import Any

from ostinato.cli.train.command import TrainCommand
from ostinato.cli.train.image import BATCHES_OF_IMAGES
from ostinato.cli.train.line import TRAINING
from ostinato.cli.train.options import TrainingOptions
from ostinato.errors import InputError


def _typed(values: dict[str, Any], options: TrainingOptions) -> dict[str, Any]:
    """Take the autoencoder of the run that is to be resumed: a branch has its parent's.

    Raises `InputError` for an option without effect on the method.
    """
    from ostinato.image.tokens import ImageTokenTrainingRun

    _require_fitting(values)
    before = options.recorded()
    known = before.codec if isinstance(before, ImageTokenTrainingRun) else None
    return {"codec": known} | values


def _require_fitting(values: dict[str, Any]) -> None:
    method = values.get("method", "row")
    if method == "pixels":
        for name in ("codec", "codec_steps"):
            if name in values:
                raise InputError(
                    f"--{name.replace('_', '-')} must be left out of --method pixels, got "
                    f"{values[name]}: it has no autoencoder."
                )
    elif "levels" in values:
        raise InputError(
            f"--levels must be left out of --method {method}, got {values['levels']}: it has codes."
        )
    if "codec" in values and "codec_steps" in values:
        raise InputError(
            f"--codec-steps must be left out with --codec, got {values['codec_steps']}: that "
            "autoencoder is trained already."
        )


CODEC = TrainCommand(kind="train image-codec", line=TRAINING)

IMAGE_TOKENS = TrainCommand(
    kind="train image-tokens",
    help="""\
    Train a model that generates images token by token: first an autoencoder, then its codes.

    SOURCES are a FOLDER of images, `digits-8x8`, or IDX files. An image is described by its class
    and by measured attributes: slanted or upright, thick or thin, large or small. The options of
    the training, from --until on, are those of the second training.
    """,
    line=TRAINING,
    overrides={**BATCHES_OF_IMAGES, "sample_every": None},
    typed=_typed,
    calls=CODEC,
)
