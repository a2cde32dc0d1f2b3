"""Training a denoiser, as a run."""

from __future__ import annotations

from pathlib import Path

from ostinato.errors import InputError
from ostinato.image.config import ImageSetRun, ImageTrainingRun
from ostinato.image.dataset import Images, hold_out, read_images
from ostinato.image.training import ImageTask, NoiseLevels, preview, shape_for
from ostinato.image.unet import UNet, save_denoiser
from ostinato.train import TrainingParts, task_parts


def read_image_set(config: ImageSetRun) -> Images:
    """Read the images of a training. Raises `InputError` that names the file."""
    return read_images(config.sources, size=config.size, gray=config.gray)


def read_classed_images(config: ImageSetRun, classes: bool | None) -> Images:
    """Read the images of a training, with their classes unless `classes` is False.

    Raises `InputError` where it is True and there are none.
    """
    images = read_image_set(config)
    if classes and images.labels is None:
        raise InputError(
            "--classes needs images with classes. Put them into sub-folders, give a file of "
            "labels, or give --unconditional."
        )
    return images.without_classes() if classes is False else images


def prepare_image_training(config: ImageTrainingRun) -> TrainingParts:
    """Read the images, and make the denoiser. Raises `InputError` for bad input."""
    noise = NoiseLevels(label_dropout=config.label_dropout)
    images = read_classed_images(config, config.classes)
    train, valid = hold_out(images, config.hold_out, seed=config.training.seed)
    shape = shape_for(images, width=config.channels, blocks=config.blocks)
    network = UNet(shape, seed=config.training.seed)

    def save(folder: Path) -> None:
        save_denoiser(folder, network)

    return task_parts(
        network,
        ImageTask(train, valid, noise=noise, sampler=preview),
        save=save,
        hashes={"data": images.fingerprint()},
        examples=(len(train), len(valid)),
    )
