"""Training a generator and a discriminator of images, as a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ostinato.adversarial.conditions import ModeCollapse, Overpowered
from ostinato.adversarial.config import DuelConfig, GanTrainingRun
from ostinato.adversarial.duel import Duel
from ostinato.adversarial.networks import Discriminator, Generator, gan_for, save_generator
from ostinato.arguments import counted, require
from ostinato.errors import InputError
from ostinato.image import (
    Classifier,
    Images,
    classifier_digest,
    hold_out,
    load_classifier,
    read_classed_images,
)
from ostinato.journal import Stopped
from ostinato.loop import Action, Condition, History, NotFinite, OnStop
from ostinato.train import TrainingParts, go_back


def prepare_gan_training(config: GanTrainingRun) -> TrainingParts:
    """Read the images, and make the networks. Raises `InputError` for bad input.

    Where samples collapse, one side wins or a loss is not finite, the duel goes back to the last
    checkpoint from before, and slows down (`rescue`), `config.rescues` times.
    """
    require(config.hold_out > 0, "hold_out", "above 0: samples are compared with it", 0)
    images, seed = read_classed_images(config, config.classes), config.training.seed
    train, valid = hold_out(images, config.hold_out, seed=seed)
    classifier, weights = _classifier(config, images)
    shape = gan_for(
        images,
        width=config.width,
        latent=config.latent,
        discriminator_width=config.discriminator_width,
    )
    generator, discriminator = Generator(shape, seed=seed), Discriminator(shape, seed=seed + 1)

    def process(settings: DuelConfig) -> Duel:
        if classifier is None:
            return Duel(generator, discriminator, train, valid, settings)
        known = not images.names or classifier.names == images.names
        return Duel(
            generator,
            discriminator,
            train,
            valid,
            settings,
            embed=classifier.features,
            classify=classifier if known else None,
        )

    def save(duel: Duel, folder: Path) -> None:
        save_generator(folder, duel.generator)

    def size(settings: DuelConfig) -> str:
        steps = settings.steps_per_epoch([1] * len(train))
        return (
            f"{counted(len(train), 'images')} to train on, {len(valid)} to compare samples with, "
            f"{counted(steps, 'steps', 'g')} per epoch"
        )

    return TrainingParts(
        process=process,
        save=save,
        hashes={"data": images.fingerprint(), "weights": weights},
        lengths=[1] * len(train),
        size=size,
        failure=duel_failure(),
        on_stop=rescue(config.training, config.rescues),
    )


def duel_failure() -> Condition:
    """Return when a duel went wrong: samples collapse, one side wins, a loss is not finite."""
    return ModeCollapse() | Overpowered() | NotFinite()


def rescue(config: DuelConfig, times: int = 2) -> OnStop:
    """Make a strategy that goes back to before the trouble, and slows down what caused it.

    After a collapse the generator gets a quarter of its rate, and at most twice that of its
    discriminator, as it ran ahead of this one (Heusel et al. 2017, two time scales). The loss is
    then the relativistic one, whose penalties are at real and at generated images. A side that won
    gets half of its own rate; else both do.
    """

    def strategy(stopped: Stopped, history: History) -> Action:
        # No advice: each condition says itself what to try.
        return go_back(times=times, advice="", **_slower(stopped, config))(stopped, history)

    return strategy


def _slower(stopped: Stopped, config: DuelConfig) -> dict[str, Any]:
    """Return the edits that answer a stop."""
    if stopped.condition.startswith(ModeCollapse.__name__):
        slower = min(0.25, 2 * config.rate_of_discriminator / config.lr)
        return {"generator/lr_scale": slower, "loss": "relativistic"}
    winner = stopped.numbers.get("winner")
    return {f"{winner}/lr_scale": 0.5} if winner else {"lr_scale": 0.5}


def _classifier(config: GanTrainingRun, images: Images) -> tuple[Classifier | None, str]:
    """Return the classifier that samples are measured with, if any, and its hash."""
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
    return network, classifier_digest(config.classifier)
