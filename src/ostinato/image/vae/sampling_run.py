"""Builds the run that decodes points of a variational autoencoder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from ostinato.errors import InputError
from ostinato.image import ImageWork, image_checks, sample_images, slerp
from ostinato.image.vae.config import SampleVaeRun
from ostinato.image.vae.decoding import DecodePoints, Point
from ostinato.image.vae.model import VAE
from ostinato.journal import RunSource, require_unchanged
from ostinato.loop import Never, accept, fold_in
from ostinato.media import image_io, to_bytes
from ostinato.models import file_hash, folder_digest

REACH = 3.0  # deviations that a walk goes to both sides: 99.7% of the points are within


def build_sample_vae(config: SampleVaeRun, *, run: RunSource | None = None) -> ImageWork:
    """Build the run that decodes points. Raises `InputError` for images that cannot be read."""
    network = VAE.load(Path(config.model)).eval()
    require_unchanged("The model's files", config.weights, vae_digest(config.model))
    points = _points(config, network)
    loop = sample_images(
        DecodePoints(network),
        points,
        Point.to_json,
        Never(),
        image_checks(config.checks, network),
        accept,
        config.seed,
        run=run,
    )
    return ImageWork(loop=loop, out=config.out, count=len(points))


def vae_digest(model: str | Path) -> str:
    """Return a hash of a model's files. Raises `ModelError` where there is none."""
    VAE.load(Path(model))
    return folder_digest(Path(model))


def _points(config: SampleVaeRun, network: VAE) -> list[Point]:
    images = [_read(*each, network) for each in zip(config.images, config.contents, strict=True)]
    means = network.encode(torch.stack([to_bytes(each) for each in images])) if images else None
    if config.show == "reconstructions":
        assert means is not None
        originals = [Point(image=each.tolist()) for each in images]
        return originals + _of(means)
    if config.show == "samples":
        return _of([_random(config.seed + n, network) for n in range(config.count)])
    shares = torch.linspace(0, 1, config.count).tolist()
    if config.show == "walk":
        start = _random(config.seed, network) if means is None else means[0]
        return _of([_moved(start, config.unit, (2 * share - 1) * REACH) for share in shares])
    if means is not None:
        return _of([torch.lerp(means[0], means[1], share) for share in shares])
    assert config.interpolate_to is not None
    ends = [_random(seed, network) for seed in (config.seed, config.interpolate_to)]
    return _of([slerp(ends[0], ends[1], share) for share in shares])


def _of(points: Sequence[Tensor] | Tensor) -> list[Point]:
    return [Point(at=tuple(each.tolist())) for each in points]


def _random(seed: int, network: VAE) -> Tensor:
    """Return the random point (Z,) of a seed."""
    generator = torch.Generator().manual_seed(fold_in(seed, "point"))
    return torch.randn(network.config.latent, generator=generator)


def _moved(point: Tensor, unit: int | None, to: float) -> Tensor:
    """Return a point whose number `unit` is another. Raises `InputError` where it has none."""
    if unit is None or not 0 <= unit < len(point):
        raise InputError(f"unit must be 0 to {len(point) - 1} for this model, got {unit}.")
    moved = point.clone()
    moved[unit] = to
    return moved


def _read(path: str, content: str, network: VAE) -> Tensor:
    """Return an image (C, S, S) in [-1, 1], scaled to the network's size."""
    if Path(path).is_file():  # else reading it says so
        require_unchanged(f"The pixels of {path}", content, file_hash(Path(path)))
    return image_io.read(Path(path), channels=network.channels, size=network.size)
