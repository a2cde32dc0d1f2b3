"""`ostinato train music`: train a language model on chorales of four voices."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import click

from ostinato.cli.train.options import SEQUENCE_SETTINGS, TrainingOptions, training_options
from ostinato.cli.train.progress import train_until


@click.command()
@click.argument("source", type=click.Path(path_type=Path, exists=True))
@click.option(
    "--hold-out",
    type=click.FloatRange(0, 1, max_open=True),
    default=0.1,
    help="Share of a FOLDER to validate on.",
)
@click.option("--layers", type=click.IntRange(min=1), default=4, help="Transformer layers.")
@click.option("--width", type=click.IntRange(min=1), default=128, help="Hidden size.")
@click.option("--heads", type=click.IntRange(min=1), default=4, help="Attention heads.")
@training_options(SEQUENCE_SETTINGS)
def music(options: TrainingOptions, **task: Any) -> None:
    """Train on music for four voices: SOURCE is a FOLDER of MIDI files, or a JSON file.

    The JSON file holds chorales in the format of the JSB-Chorales-dataset (its quarter.json). Each
    piece is transposed to every key in which it can be sung.
    """
    from ostinato.music import RECIPE, MusicTrainingRun, prepare_music_training

    config = MusicTrainingRun(
        **options.run_fields(), training=dataclasses.replace(RECIPE, **options.settings), **task
    )
    parts = prepare_music_training(config)
    train_until(config, options, parts, parts=parts)
