"""`ostinato sample gan`: draw images with a generator."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from ostinato.cli.following import View, view_options
from ostinato.cli.options import seed_option
from ostinato.cli.presenters import drive
from ostinato.cli.recording import Recording, recording_options
from ostinato.cli.sample.image import require_path, spelled, target_of
from ostinato.cli.sample.image_checks import check_options, checks_of, place_of


@click.command()
@click.argument("model")
@click.option("--label", "labels", multiple=True, help="Class, by name or number; repeatable.")
@click.option("--count", type=click.IntRange(min=1), default=1, help="Images per class.")
@seed_option
@click.option(
    "--interpolate-to",
    type=int,
    help="Seed to interpolate to: noise from --seed to this over --count.",
)
@check_options
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="A .png or a folder of images.  [default: a new sample.png]",
)
@view_options
@recording_options(spelled)
def gan(recording: Recording, model: str, out: Path | None, view: View, **params: Any) -> None:
    """Draw images with MODEL, a folder of `ostinato train gan`, each in one step.

    With checks, an image that fails is drawn again of other noise.
    """
    from ostinato.adversarial import SampleGanRun, generator_digest

    require_path(params["interpolate_to"], params["count"])
    checks = checks_of(params).config(pipeline=False)
    config = SampleGanRun(
        model=place_of(model),
        out=target_of(out),
        checks=checks,
        weights=generator_digest(model),
        **params,
    )
    sys.exit(drive(config, recording, view, spelled))
