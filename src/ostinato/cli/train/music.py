"""`ostinato train music`: train a language model on chorales of four voices."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import click

from ostinato.arguments import require
from ostinato.cli.train.options import SEQUENCE_SETTINGS, RunOptions, training_options
from ostinato.cli.train.training_run import TrainingJob, train_until
from ostinato.errors import InputError


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
def music(
    source: Path, hold_out: float, layers: int, width: int, heads: int, options: RunOptions
) -> None:
    """Train on music for four voices: SOURCE is a FOLDER of MIDI files, or a JSON file.

    The JSON file holds chorales in the format of the JSB-Chorales-dataset (its quarter.json). Each
    piece is transposed to every key in which it can be sung.
    """
    from ostinato.music import RECIPE, examples, music_model, read_pieces
    from ostinato.train import TextTask, save_model

    require(
        width % heads == 0 and (width // heads) % 2 == 0,  # rotary embeddings turn pairs
        "--width",
        f"--heads ({heads}) times an even number",
        width,
        f"Give a width such as {32 * heads}.",
    )
    config = dataclasses.replace(RECIPE, **options.settings)
    pieces = read_pieces(source, hold_out=hold_out, seed=config.seed)
    model = music_model(layers=layers, width=width, heads=heads, seed=config.seed)
    train, valid = examples(pieces.train), examples(pieces.valid, every_key=False)
    if not train:
        raise InputError(
            f"{source} must hold pieces that four voices can sing, got none. Transpose single "
            "voices by octaves."
        )
    network = model.llama()
    train_until(
        TrainingJob(
            command="music",
            network=network,
            task=TextTask(train, valid),
            config=config,
            fingerprint=repr((pieces.fingerprint(), layers, width, heads)),
            examples=(len(train), len(valid)),
            folder=options.out,
            save=lambda: save_model(options.out, network, model.tokenizer),
        ),
        options,
    )
