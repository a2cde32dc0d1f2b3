"""`ostinato train`: all trainings that the command line offers, by their declarations."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from ostinato.cli.train.command import TrainCommand
from ostinato.cli.train.gan import GAN
from ostinato.cli.train.image import IMAGE
from ostinato.cli.train.image_tokens import CODEC, IMAGE_TOKENS
from ostinato.cli.train.music import MUSIC
from ostinato.cli.train.policy import POLICY
from ostinato.cli.train.preferences import PREFERENCES
from ostinato.cli.train.text import TEXT
from ostinato.cli.train.vae import VAE

if TYPE_CHECKING:
    from ostinato.cli.following import View
    from ostinato.cli.run_loop import Exit
    from ostinato.journal import RunConfig, RunSource

TRAININGS: dict[str, TrainCommand] = {}
"""By kind of run."""


@click.group()
def train() -> None:
    """Train a model until it is good enough; the same command resumes."""


def offer(training: TrainCommand) -> None:
    """Add a training: its command, unless only other trainings call it, and how it is resumed."""
    TRAININGS[training.kind] = training
    if training.help:
        train.add_command(training.command())


for each in (GAN, IMAGE, IMAGE_TOKENS, CODEC, MUSIC, POLICY, PREFERENCES, TEXT, VAE):
    offer(each)


def present(config: RunConfig, run: RunSource | None, view: View) -> Exit:
    """Drive a training of any kind as its declaration says."""
    training = TRAININGS.get(config.kind) or TrainCommand(kind=config.kind)
    return training.present(config, run, view)
