"""`ostinato train image-tokens`: an autoencoder of images, then a model of its codes."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from ostinato.arguments import require
from ostinato.cli.train.options import (
    SEQUENCE_SETTINGS,
    RunOptions,
    image_settings,
    image_source_options,
    training_options,
)
from ostinato.cli.train.training_run import TrainingJob, train_until
from ostinato.errors import InputError

if TYPE_CHECKING:
    from ostinato.image import Images
    from ostinato.image.tokens import VQ, Codec

Method = Literal["row", "pixels", "unmask", "coarse"]
LEVELS = 8


@click.command("image-tokens")
@image_source_options
@click.option(
    "--method",
    type=click.Choice(["row", "pixels", "unmask", "coarse"]),
    default="row",
    help="Order of generation: code by code, pixel by pixel, MaskGIT, or discrete diffusion.",
)
@click.option(
    "--levels", type=int, help=f"Levels per channel, for --method pixels.  [default: {LEVELS}]"
)
@click.option("--codec-steps", type=int, help="Training steps of the autoencoder.  [default: 400]")
@click.option(
    "--codec",
    "codec_folder",
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
    size: int | None,
    gray: bool | None,
    hold_out: float,
    method: Method,
    levels: int | None,
    codec_steps: int | None,
    codec_folder: Path | None,
    layers: int,
    width: int,
    heads: int,
    attribute_dropout: float,
    options: RunOptions,
) -> None:
    """Train a model that generates images token by token: first an autoencoder, then its codes.

    SOURCES are a FOLDER of images, `digits-8x8`, or IDX files. An image is described by its class
    and by measured attributes: slanted or upright, thick or thin, large or small. The options of
    the training, from --until on, are those of the second training.
    """
    from ostinato.image import hold_out as split
    from ostinato.image import read_images
    from ostinato.image.tokens import (
        CODES_RECIPE,
        RECIPE,
        Attributes,
        PixelQuantizer,
        new_image_token_model,
        task_of,
    )

    _require_fitting(method, size, levels, codec_steps, codec_folder, attribute_dropout)
    levels, codec_steps = levels or LEVELS, codec_steps or CODES_RECIPE.steps
    config = dataclasses.replace(RECIPE, **options.settings)
    images = read_images(sources, size=size, gray=gray)
    train, valid = split(images, hold_out, seed=config.seed)
    codec: Codec
    if method == "pixels":
        codec = PixelQuantizer(channels=images.channels, size=images.size, levels=levels)
    elif codec_folder is not None:
        codec = _known_codec(codec_folder, images)
    else:
        codec = _train_codec((train, valid), codec_steps, config.seed, options)
    model = new_image_token_model(
        method,
        codec,
        Attributes.of(train),
        layers=layers,
        width=width,
        heads=heads,
        seed=config.seed,
    )
    shape = (method, hold_out, levels, layers, width, heads, attribute_dropout)
    train_until(
        TrainingJob(
            command="image-tokens",
            network=model.network,
            task=task_of(model, train, valid, attribute_dropout=attribute_dropout),
            config=config,
            # With the codec: its codes are the data, and mean nothing to another codec.
            fingerprint=repr((images.fingerprint(), *shape, codec.fingerprint())),
            examples=(len(train), len(valid)),
            folder=options.out,
            save=lambda: model.save(options.out),
        ),
        options,
    )


def _require_fitting(
    method: str,
    size: int | None,
    levels: int | None,
    codec_steps: int | None,
    codec_folder: Path | None,
    attribute_dropout: float,
) -> None:
    """Raise `InputError` for a value out of range, or an option without effect on the method."""
    require(size is None or 8 <= size <= 64, "--size", "8 to 64", size, "Give a side such as 28.")
    require(
        0 <= attribute_dropout < 1,
        "--attribute-dropout",
        "in [0, 1)",
        attribute_dropout,
        "Give a share such as 0.2.",
    )
    if method == "pixels":
        for name, value in {"--codec": codec_folder, "--codec-steps": codec_steps}.items():
            if value is not None:
                raise InputError(
                    f"{name} must be left out of --method pixels, got {value}: it has no "
                    "autoencoder."
                )
    elif levels is not None:
        raise InputError(
            f"--levels must be left out of --method {method}, got {levels}: it has codes."
        )
    require(
        levels is None or 2 <= levels <= 256, "--levels", "2 to 256", levels, "Give few, such as 4."
    )
    require(
        codec_steps is None or codec_steps >= 1,
        "--codec-steps",
        "at least 1",
        codec_steps,
        "Give more.",
    )
    if codec_folder is not None and codec_steps is not None:
        raise InputError(
            f"--codec-steps must be left out with --codec, got {codec_steps}: that autoencoder is "
            "trained already."
        )


def _known_codec(folder: Path, images: Images) -> VQ:
    """Read the autoencoder of another model. Raises `InputError` for images of another shape."""
    from ostinato.image.tokens import VQ

    # The folder of a whole model, or that of its autoencoder alone.
    codec = VQ.load(folder / "codes" if (folder / "codes").is_dir() else folder)
    c = codec.config
    if (c.channels, c.size) != (images.channels, images.size):
        raise InputError(
            f"--codec must be of images of {images.channels} channels and {images.size} pixels, "
            f"got {c.channels} and {c.size}. Give --size and --gray or --color as it was trained."
        )
    return codec


def _train_codec(images: tuple[Images, Images], steps: int, seed: int, options: RunOptions) -> VQ:
    """Train the autoencoder, or resume its run; return it with its best weights."""
    from ostinato.image.tokens import CODES_RECIPE, VQ, ReconstructionTask, VQConfig

    # A branch writes to a folder of its own, but shares its parent's autoencoder: the branch's
    # recorded folder is still its parent's.
    out = Path(options.recorded_spec().get("out", options.out) if options.run_name else options.out)
    shape = VQConfig.for_images(images[0].channels, images[0].size)
    network = VQ(shape, seed=seed)
    train_until(
        TrainingJob(
            command="image-tokens",
            network=network,
            task=ReconstructionTask(*images),
            config=dataclasses.replace(CODES_RECIPE, steps=steps, seed=seed),
            fingerprint=repr((images[0].fingerprint(), images[1].fingerprint(), shape)),
            examples=(len(images[0]), len(images[1])),
            folder=out / "codes",
            save=lambda: network.save(out / "codes"),
        ),
        RunOptions(
            out=out.resolve().parent / f"{out.resolve().name}-codes",
            checkpoint_every=options.checkpoint_every,
            fresh=options.fresh,
            journal=options.journal,
            settings={"steps": steps},
        ),
    )
    # Read back, as `network` holds the last weights and not the best.
    return VQ.load(out / "codes")
