"""`ostinato train gan`: train a generator of images against a discriminator."""

from __future__ import annotations

import click

from ostinato.cli.train.command import TrainCommand
from ostinato.cli.train.image import save_grid
from ostinato.cli.train.line import line
from ostinato.cli.train.settings import Setting

GAN = TrainCommand(
    kind="train gan",
    help="""Train a generator of images: a FOLDER of files, `digits-8x8`, or IDX files (MNIST's).

    A discriminator learns to tell its images from real ones, and both are updated in turns. The
    generator is saved whose samples came closest to the held-out images. Where its images become
    alike or one side wins, the duel goes back by itself, with the reason in its run.
    A grid of samples is written to OUT/samples during the training.
    """,
    line=line(
        "epoch {epoch:6.2f}",
        "generator {generator/loss:.3f}",
        "discriminator {discriminator/loss:.3f}",
        "told apart {accuracy:4.0%}",
        "diversity {diversity:.2f}",
        "distance {fd:.2f}",
        "precision {precision:.2f}",
        "recall {recall:.2f}",
        "classes {classes}",
        "recognized {class_accuracy:4.0%}",
    ),
    sample=save_grid,
    overrides={
        "batch_images": Setting(click.IntRange(min=1), "Real images per update.", "--batch-size"),
    },
)
