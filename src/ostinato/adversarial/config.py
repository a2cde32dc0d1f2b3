"""The configuration of a duel. Imports no torch: the command line makes options from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from ostinato.arguments import require, require_above, require_at_least
from ostinato.errors import InputError
from ostinato.image import ImageSetRun, ImagesRun
from ostinato.journal import Place
from ostinato.train import GradientConfig, option

AUGMENTATIONS = ("color", "translation", "cutout")
"""What a duel may do to all images that the discriminator sees, in this order."""


@dataclass(frozen=True, kw_only=True)
class DuelConfig(GradientConfig):
    """How a generator and a discriminator train in turns."""

    planned: ClassVar[tuple[str, ...]] = (*GradientConfig.planned, "batch_images")
    batch: ClassVar[str] = "batch_images"

    steps: int = option(
        4000, "Steps of the learning-rate schedule; also the limit if no other condition is given."
    )
    lr: float = option(2e-3, "Peak learning rate of the generator.")
    min_lr_ratio: float = option(0.1, "Final learning rate as a share of the peak.")
    max_grad_norm: float = option(0.0, "Gradient clipping: largest norm, of each network; 0: none.")
    ema_decay: float = option(
        0.999, "Decay of the generator's averaged weights (EMA), which are kept; 0: none."
    )
    valid_every: int = option(200, "Steps between measurements of the samples' quality.")
    sample_every: int = option(200, "Steps between grids of samples; 0: none.")
    seed: int = option(0, "Seed of the data order, the initial weights and the noise.")
    batch_images: int = option(
        64, "Real images per update, and as many generated ones.", flag="--batch-size"
    )
    discriminator_updates: int = option(1, "Updates of the discriminator per step.")
    discriminator_lr: float | None = option(
        None, "Peak learning rate of the discriminator.  [default: half of the generator's]"
    )
    loss: Literal["relativistic", "non-saturating", "hinge", "wasserstein"] = option(
        "relativistic",
        "Loss: relativistic with R1 and R2 (R3GAN), non-saturating with R1, hinge without a "
        "penalty, Wasserstein with a gradient penalty.",
    )
    penalty: float | None = option(
        None, "Weight of the loss's gradient penalty.  [default: 0.3; Wasserstein: 10]"
    )
    penalty_every: int | None = option(
        None,
        "Steps between gradient penalties; each is scaled up by this number.  "
        "[default: 8; Wasserstein: 1]",
    )
    beta1: float = option(0.0, "Decay of Adam's mean of gradients.")
    beta2: float = option(0.99, "Decay of Adam's mean of squared gradients.")
    augment: tuple[str, ...] = option(
        (), f"Augmentations for small data (DiffAugment): any of {', '.join(AUGMENTATIONS)}."
    )
    augment_target: float | None = option(
        None,
        "Adapt the probability of the augmentations so that `overfitting` stays at this value, "
        "such as 0.6 (ADA).  [default: all images are augmented]",
    )
    watch_every: int = option(10, "Steps between measurements of diversity and held-out scores.")
    watched: int = option(100, "Images of such a measurement; always the same.")
    samples: int = option(1000, "Samples per measurement of quality.")

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "augment", tuple(self.augment))
        counts = ("batch_images", "discriminator_updates", "watch_every")
        require_at_least(1, **{name: getattr(self, name) for name in counts})
        require_at_least(2, watched=self.watched, samples=self.samples)
        if self.penalty_every is not None:
            require_at_least(1, penalty_every=self.penalty_every)
        if self.discriminator_lr is not None:
            require_above(0, discriminator_lr=self.discriminator_lr)
        for name in ("beta1", "beta2"):
            value = getattr(self, name)
            require(0 <= value < 1, name, "in [0, 1)", value)
        if self.loss == "hinge" and self.penalty:
            raise InputError(
                f"penalty must be left out with the hinge loss, which has none, got {self.penalty}."
            )
        require(self.penalty is None or self.penalty >= 0, "penalty", "0 or more", self.penalty)
        for name in self.augment:
            require(name in AUGMENTATIONS, "augment", f"any of {', '.join(AUGMENTATIONS)}", name)
        target = self.augment_target
        if target is not None:
            require(0 < target < 1, "augment_target", "between 0 and 1", target)
            mend = "Name the augmentations whose probability is adapted."
            require(bool(self.augment), "augment", "given with augment_target", self.augment, mend)

    @property
    def rate_of_discriminator(self) -> float:
        """The peak learning rate of the discriminator."""
        return self.lr / 2 if self.discriminator_lr is None else self.discriminator_lr

    # The plan ---------------------------------------------------------------------------------

    def steps_per_epoch(self, lengths: Sequence[int]) -> float:
        """Return how many steps a pass over so many images takes."""
        batches = -(-len(lengths) // self.batch_images)
        return batches / self.discriminator_updates


@dataclass(frozen=True, kw_only=True)
class GanTrainingRun(ImageSetRun):
    """A generator and a discriminator, trained on images in turns.

    `classes` None: conditioned on the classes if there are any. `classifier` is a folder with a
    classifier of the images, in whose features samples are measured.
    """

    kind: ClassVar[str] = "train gan"
    prepare: ClassVar[str] = "ostinato.adversarial:prepare_gan_training"
    measure: ClassVar[str] = "fd"
    hashes: ClassVar[frozenset[str]] = ImageSetRun.hashes | {"weights"}

    training: DuelConfig = DuelConfig()
    classes: bool | None = option(
        None,
        "Condition on the classes.  [default: if there are any]",
        flag="--classes/--unconditional",
    )
    width: int = option(
        32, "Generator's channels of the finest level; each coarser level has twice as many."
    )
    discriminator_width: int | None = option(
        None, "Discriminator's channels of the finest level.  [default: half of the generator's]"
    )
    latent: int = option(64, "Size of the noise that an image is made of.")
    classifier: Place | None = option(
        None,
        "Measure samples in the features of this classifier.  [default: of an untrained network]",
    )
    rescues: int = option(
        2,
        "How often to go back to an earlier checkpoint, with a lower learning rate, when the duel "
        "collapses or one side wins.",
    )
    weights: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_at_least(1, width=self.width, latent=self.latent)
        if self.discriminator_width is not None:
            require_at_least(1, discriminator_width=self.discriminator_width)
        require_at_least(0, rescues=self.rescues)


@dataclass(frozen=True, kw_only=True)
class SampleGanRun(ImagesRun):
    """Images that a generator draws.

    `labels` are classes by name or number; none: one of any class. With `interpolate_to`, the noise
    of the images goes from that of `seed` to that of this one.
    """

    kind: ClassVar[str] = "sample gan"

    labels: tuple[str, ...] = ()
    interpolate_to: int | None = None
