"""`ostinato train vae`: train a variational autoencoder of images."""

from __future__ import annotations

from ostinato.cli.train.command import TrainCommand
from ostinato.cli.train.image import BATCHES_OF_IMAGES, save_grid
from ostinato.cli.train.line import line

VAE = TrainCommand(
    kind="train vae",
    help="""Train a variational autoencoder: a FOLDER of images, `digits-8x8`, or IDX files.

    Images become points near each other where they look alike; a random point is an image too.
    A grid is written to OUT/samples: images, their reconstructions, and samples. Where the
    posterior collapses, so that all images are decoded alike, the training goes back by itself with
    a lower beta and free bits, with the reason in its run.
    """,
    line=line(
        "epoch {epoch:6.2f}",
        "loss {loss/train:.1f}",
        "kl {kl:.2f}",
        "valid {loss/valid:.1f}",
        "bits per dim {bits_per_dim:.3f}",
        "deviation {deviation/valid:.3f}",
        "active units {active_units:.0f}",
    ),
    sample=save_grid,
    overrides=BATCHES_OF_IMAGES,
)
