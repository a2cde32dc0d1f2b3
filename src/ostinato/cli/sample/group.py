"""`ostinato sample`: all commands that sample from a trained model."""

from __future__ import annotations

import click

from ostinato.cli.sample.gan import gan
from ostinato.cli.sample.image import image
from ostinato.cli.sample.image_tokens import image_tokens
from ostinato.cli.sample.music import music
from ostinato.cli.sample.vae import vae


@click.group()
def sample() -> None:
    """Sample from a trained model, step by step."""


for each in (image, image_tokens, gan, vae, music):
    sample.add_command(each)
