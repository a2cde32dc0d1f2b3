"""The configurations of training a variational autoencoder and of its images. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from ostinato.arguments import counted, require, require_at_least
from ostinato.errors import InputError
from ostinato.image import ImageSetRun, ImagesRun
from ostinato.loop import check_seed
from ostinato.train import TrainingConfig, option

PER_CLASS, WITHOUT_CLASSES = 10, 40
"""Normal distributions that the points of a class, or of images without classes, are fitted by."""

Shown = Literal["samples", "reconstructions", "interpolation", "walk"]
"""What a model's images are of."""

RECIPE = TrainingConfig(
    steps=4000,
    batch_tokens=64,
    optimizer="muon",  # after 400 steps a distance of 2.8, with AdamW 4.9 (docs/log.md)
    lr=0.02,
    warmup_steps=20,
    min_lr_ratio=0.01,
    ema_decay=0.99,
    valid_every=200,
    sample_every=500,
)
"""Training settings, for two minutes on two threads; `batch_tokens` counts images."""


@dataclass(frozen=True, kw_only=True)
class VaeTrainingRun(ImageSetRun):
    """A variational autoencoder trained on images.

    `classes` None: with a prior for each class if there are any.
    """

    kind: ClassVar[str] = "train vae"
    prepare: ClassVar[str] = "ostinato.image.vae:prepare_vae_training"

    training: TrainingConfig = RECIPE
    width: int = option(16, "Channels of the finest level; a multiple of 16.")
    latent: int = option(24, "Size of the latent vector.")
    beta: float = option(
        1.0, "Weight of the KL divergence (beta-VAE): more for better samples, less for sharper."
    )
    free_bits: float = option(
        0.0, "Free bits: nats per latent dimension without a KL penalty; against collapse."
    )
    classes: bool | None = option(
        None,
        "Draw images of a class (--label).  [default: if there are any]",
        flag="--classes/--unconditional",
    )
    components: int | None = option(
        None,
        "Gaussians in the prior that samples are drawn from, per class; 0: the standard normal.  "
        f"[default: {PER_CLASS}, or {WITHOUT_CLASSES} without classes]",
    )
    rescues: int = option(
        2,
        "How often to go back to a checkpoint, with a quarter of beta and some free bits, when the "
        "posterior collapses.",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        right = self.width >= 16 and self.width % 16 == 0
        require(right, "width", "a multiple of 16", self.width)
        require_at_least(1, latent=self.latent)
        require_at_least(0, beta=self.beta, free_bits=self.free_bits)
        require_at_least(0, components=self.components or 0, rescues=self.rescues)


@dataclass(frozen=True, kw_only=True)
class SampleVaeRun(ImagesRun):
    """Images that a variational autoencoder decodes: what `show` names, `count` of each.

    samples: of random points, of each of the classes `labels` by name or number.
    reconstructions: each image of `images`, and what comes back of it; `count` is 1.
    interpolation: from the first of two `images` to the second; without images, from the random
        point of `seed` to that of `interpolate_to`.
    walk: a point with number `unit` going from -3 to 3: that of the image, or a random one.

    `images` are paths, and `contents` the SHA-256 of their files: these count.
    """

    kind: ClassVar[str] = "sample vae"
    free: ClassVar[frozenset[str]] = ImagesRun.free | {"images"}

    show: Shown = "samples"
    labels: tuple[str, ...] = ()
    images: tuple[str, ...] = ()
    contents: tuple[str, ...] = ()
    interpolate_to: int | None = None
    unit: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        fits = {
            "samples": not self.images,
            "reconstructions": bool(self.images) and self.count == 1,
            "interpolation": len(self.images) == (2 if self.interpolate_to is None else 0),
            "walk": len(self.images) <= 1,
        }
        wanted = {
            "samples": "none for samples",
            "reconstructions": "at least one for reconstructions, with a count of 1",
            "interpolation": "two to interpolate between, or none and a seed to interpolate to",
            "walk": "at most one to walk from",
        }
        got = f"{counted(len(self.images), 'images')} and a count of {self.count}"
        require(fits[self.show], "images", wanted[self.show], got)
        if self.show in ("interpolation", "walk") and self.count < 2:
            raise InputError(f"count must be 2 or more for {self.show}, got {self.count}. Give 8.")
        if self.labels and self.images:
            raise InputError(
                f"labels must be left out with images, which have their own, got {self.labels}."
            )
        if (self.unit is None) == (self.show == "walk"):
            raise InputError(f"unit must come with walk and only with it, got {self.unit}.")
        if self.interpolate_to is not None:
            check_seed(self.interpolate_to)
        require(len(self.contents) == len(self.images), "contents", "one per image", self.contents)
