"""Training a variational autoencoder, as a run."""

from __future__ import annotations

from pathlib import Path

from ostinato.image import hold_out, read_classed_images
from ostinato.image.vae.conditions import PosteriorCollapse
from ostinato.image.vae.config import VaeTrainingRun
from ostinato.image.vae.model import VAE, VAEConfig
from ostinato.image.vae.task import VaeTask
from ostinato.journal import Stopped
from ostinato.loop import Action, History, NotFinite, OnStop
from ostinato.train import TrainingParts, go_back, task_parts


def rescue(times: int) -> OnStop:
    """Make a strategy that goes back where the posterior collapsed or a number is not finite.

    After a collapse, which is a bad bargain between the two parts of the loss, the KL divergence
    costs a quarter, and each unit has a tenth of a nat for nothing.
    """
    collapsed = go_back(times=times, beta_scale=0.25, free_bits=0.1)
    not_finite = go_back(lr_scale=0.5)

    def strategy(stopped: Stopped, history: History) -> Action:
        answer = collapsed if "active_units" in stopped.numbers else not_finite
        return answer(stopped, history)

    return strategy


def prepare_vae_training(config: VaeTrainingRun) -> TrainingParts:
    """Read the images, and make the autoencoder. Raises `InputError` for bad input."""
    seed = config.training.seed
    images = read_classed_images(config, config.classes)
    train, valid = hold_out(images, config.hold_out, seed=seed)
    shape = VAEConfig.for_images(
        images.channels, images.size, width=config.width, latent=config.latent
    )
    network = VAE(shape, seed=seed)
    task = VaeTask(
        train,
        valid,
        beta=config.beta,
        free_bits=config.free_bits,
        components=config.components,
    )

    def save(folder: Path) -> None:
        network.fit_prior(train, config.components)
        network.save(folder)

    return task_parts(
        network,
        task,
        save=save,
        hashes={"data": images.fingerprint()},
        examples=(len(train), len(valid)),
        failure=PosteriorCollapse() | NotFinite(),
        on_stop=rescue(config.rescues),
    )
