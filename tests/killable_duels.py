"""A duel that acts by itself, as a loop that `check_killed` starts in a process of its own."""

from __future__ import annotations

from typing import Any

import torch

from ostinato.adversarial import (
    Discriminator,
    Duel,
    DuelConfig,
    Generator,
    Overpowered,
    gan_for,
    rescue,
)
from ostinato.image import Images
from ostinato.loop import CheckpointSchedule, Loop, Steps


def bars(count: int, seed: int) -> Images:
    """Return images of one bright bar across."""
    places = torch.randint(1, 7, (count,), generator=torch.Generator().manual_seed(seed))
    pixels = torch.zeros(count, 1, 8, 8, dtype=torch.uint8)
    pixels[torch.arange(count), 0, places] = 255
    return Images(pixels)


def duel(**where: Any) -> Loop:
    """A discriminator that wins at once, so that the duel goes back, and adapts its images."""
    images = bars(40, 0)
    shape = gan_for(images, width=4, latent=4)
    config = DuelConfig(
        steps=60,
        batch_images=8,
        watch_every=2,
        watched=10,
        valid_every=10,
        samples=12,
        sample_every=20,
        augment=("translation", "cutout"),
        augment_target=1e-9,
        lr=5e-3,
    )
    others = Images(255 - bars(20, 1).pixels)  # score low, as if the discriminator overfitted
    process = Duel(Generator(shape), Discriminator(shape, seed=1), images, others, config)
    return Loop(
        process,
        until=Steps(60) | Overpowered(above=0.7, patience=9),
        on_stop=rescue(config),
        checkpoint=CheckpointSchedule(steps=4, keep=1),
        **where,
    )
