"""`ostinato sample vae`: decode points of a variational autoencoder."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ostinato.cli.following import View, view_options
from ostinato.cli.options import flag_of, seed_option
from ostinato.cli.presenters import drive
from ostinato.cli.recording import Recording, recording_options
from ostinato.cli.sample.image import target_of
from ostinato.cli.sample.image_checks import place_of
from ostinato.errors import InputError

if TYPE_CHECKING:
    from ostinato.image.vae import Shown


def spelled(name: str) -> str:
    """Return how a field is called on the command line."""
    names = {
        "model": "MODEL",
        "weights": "MODEL (its files have changed)",
        "images": "--from",
        "labels": "--label",
        "contents": "--from (its pixels)",
        "show": "what is shown",
        "unit": "--walk",
    }
    return names.get(name) or flag_of(name)


@click.command()
@click.argument("model")
@click.option(
    "--from",
    "images",
    multiple=True,
    type=click.Path(path_type=Path),
    help="Image to reconstruct; with --count, two to interpolate between; repeatable.",
)
@click.option("--label", "labels", multiple=True, help="Class, by name or number; repeatable.")
@click.option("--count", type=click.IntRange(min=1), default=1, help="Images to draw per class.")
@seed_option
@click.option(
    "--interpolate-to", type=int, help="Seed to interpolate to, from --seed, over --count."
)
@click.option(
    "--walk",
    "unit",
    type=click.IntRange(min=0),
    help="Latent dimension to move from -3 to 3 over --count, from --from or a random point.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="A .png or a folder of images.  [default: a new sample.png]",
)
@view_options
@recording_options(spelled)
def vae(
    recording: Recording,
    model: str,
    images: tuple[Path, ...],
    labels: tuple[str, ...],
    count: int,
    seed: int,
    interpolate_to: int | None,
    unit: int | None,
    out: Path | None,
    view: View,
) -> None:
    """Decode images with MODEL, a folder of `ostinato train vae`.

    Without options a random image. --from IMAGE is shown beside its reconstruction; two of them
    with --count are interpolated.
    """
    from ostinato.image.vae import SampleVaeRun, vae_digest
    from ostinato.models import file_hash

    if images and labels:
        raise InputError(
            "--label must be given without --from, got both: an image has its own class. Leave one "
            "out."
        )
    for image in images:
        if not image.is_file():
            raise InputError(f"--from must be an image file, got {image}. Name one that exists.")
    config = SampleVaeRun(
        model=place_of(model),
        out=target_of(out),
        show=_shown(images, count, interpolate_to, unit),
        images=tuple(str(image.absolute()) for image in images),
        contents=tuple(file_hash(image) for image in images),
        labels=labels,
        count=count,
        seed=seed,
        interpolate_to=interpolate_to,
        unit=unit,
        weights=vae_digest(model),
    )
    sys.exit(drive(config, recording, view, spelled))


def _shown(images: tuple[Path, ...], count: int, to: int | None, unit: int | None) -> Shown:
    """Return what the options ask for. Raises `InputError` for those that contradict each other."""
    if to is not None and unit is not None:
        raise InputError("Only one of --interpolate-to and --walk must be given, got both.")
    if to is not None and images:
        raise InputError(
            "--interpolate-to must be given without --from, got both. Give --from twice to "
            "interpolate between images."
        )
    if unit is not None or to is not None:
        if count == 1:
            raise InputError(
                "--interpolate-to and --walk must come with --count, got one image. Add --count 8."
            )
        if len(images) > 1:
            raise InputError(f"--walk must have at most one --from, got {len(images)}. Give one.")
        return "walk" if unit is not None else "interpolation"
    if images and count > 1:
        if len(images) != 2:
            raise InputError(
                f"--count must come with two --from to interpolate between, got {len(images)}. "
                "Give two, or leave --count out to reconstruct."
            )
        return "interpolation"
    return "reconstructions" if images else "samples"
