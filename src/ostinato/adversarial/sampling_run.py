"""Builds the run that samples images with a generator."""

from __future__ import annotations

from pathlib import Path

from ostinato.adversarial.config import SampleGanRun
from ostinato.adversarial.networks import load_generator
from ostinato.adversarial.sampling import Generate, draw_again
from ostinato.image import ImageRequest, ImageWork, image_checks, noise_requests, sample_images
from ostinato.journal import RunSource, require_unchanged
from ostinato.loop import Never, accept
from ostinato.models import folder_digest


def build_sample_gan(config: SampleGanRun, *, run: RunSource | None = None) -> ImageWork:
    """Build the run that samples images with a generator."""
    network = load_generator(config.model)
    require_unchanged("The model's files", config.weights, generator_digest(config.model))
    requests = noise_requests(
        config.labels,
        network,
        count=config.count,
        seed=config.seed,
        interpolate_to=config.interpolate_to,
    )
    checks = image_checks(config.checks, network)
    loop = sample_images(
        Generate(network),
        requests,
        ImageRequest.to_json,
        Never(),
        checks,
        draw_again(config.checks.rounds) if checks else accept,
        config.seed,
        run=run,
    )
    return ImageWork(loop=loop, out=config.out, count=len(requests))


def generator_digest(model: str | Path) -> str:
    """Return a hash of a generator's files. Raises `ModelError` where there is none."""
    load_generator(model)
    return folder_digest(Path(model))
