"""Training a generator and a discriminator of images, as a run."""

from __future__ import annotations

from pathlib import Path

from ostinato.adversarial.conditions import ModeCollapse, Overpowered
from ostinato.adversarial.config import DuelConfig, GanTrainingRun
from ostinato.adversarial.duel import Duel
from ostinato.adversarial.networks import Discriminator, Generator, gan_for, save_generator
from ostinato.adversarial.quality import Embed
from ostinato.arguments import require
from ostinato.errors import InputError
from ostinato.image import Images, classifier_digest, hold_out, load_classifier, read_classed_images
from ostinato.loop import NotFinite
from ostinato.train import TrainingParts, go_back


def prepare_gan_training(config: GanTrainingRun) -> TrainingParts:
    """Read the images, and make the networks. Raises `InputError` for bad input.

    Where samples collapse, one side wins or a loss is not finite, the duel goes back to the last
    checkpoint at half its learning rates, `config.rescues` times.
    """
    require(config.hold_out > 0, "hold_out", "above 0: samples are compared with it", 0)
    images, seed = read_classed_images(config, config.classes), config.training.seed
    train, valid = hold_out(images, config.hold_out, seed=seed)
    embed, weights = _embed(config, images)
    shape = gan_for(
        images,
        width=config.width,
        latent=config.latent,
        discriminator_width=config.discriminator_width,
    )
    generator, discriminator = Generator(shape, seed=seed), Discriminator(shape, seed=seed + 1)

    def process(settings: DuelConfig) -> Duel:
        return Duel(generator, discriminator, train, valid, settings, embed=embed)

    def save(duel: Duel, folder: Path) -> None:
        save_generator(folder, duel.generator)

    def size(settings: DuelConfig) -> str:
        steps = settings.steps_per_epoch([1] * len(train))
        return (
            f"{len(train)} images to train on, {len(valid)} to compare samples with, "
            f"{steps:g} steps per epoch"
        )

    return TrainingParts(
        process=process,
        save=save,
        hashes={"data": images.fingerprint(), "weights": weights},
        lengths=[1] * len(train),
        size=size,
        failure=ModeCollapse() | Overpowered() | NotFinite(),
        on_stop=go_back(lr_scale=0.5, times=config.rescues),
    )


def _embed(config: GanTrainingRun, images: Images) -> tuple[Embed | None, str]:
    """Return the features that samples are measured in, and the hash of their network."""
    if config.classifier is None:
        return None, ""
    network = load_classifier(config.classifier)
    shape = network.config
    if (shape.channels, shape.size) != (images.channels, images.size):
        raise InputError(
            f"--classifier must be one of images of {images.channels} x {images.size} x "
            f"{images.size}, got {shape.channels} x {shape.size} x {shape.size}. Give another, or "
            "leave it out."
        )
    return network.features, classifier_digest(config.classifier)
