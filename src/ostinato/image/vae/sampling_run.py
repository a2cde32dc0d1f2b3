"""Builds the run that decodes points of a variational autoencoder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from ostinato.errors import InputError
from ostinato.image import ImageWork, image_checks, noise_requests, sample_images, slerp
from ostinato.image.vae.config import SampleVaeRun
from ostinato.image.vae.decoding import DecodePoints, Point
from ostinato.image.vae.model import VAE, load_vae
from ostinato.journal import RunSource, require_unchanged
from ostinato.loop import Never, accept, fold_in
from ostinato.media import image_io, to_bytes
from ostinato.models import file_hash, folder_digest

REACH = 3.0  # deviations that a walk goes to both sides: 99.7% of the points are within


def build_sample_vae(config: SampleVaeRun, *, run: RunSource | None = None) -> ImageWork:
    """Build the run that decodes points. Raises `InputError` for images that cannot be read."""
    network = load_vae(config.model)
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
    load_vae(model)
    return folder_digest(Path(model))


def _points(config: SampleVaeRun, network: VAE) -> list[Point]:
    images = [_read(*each, network) for each in zip(config.images, config.contents, strict=True)]
    means = network.encode(torch.stack([to_bytes(each) for each in images])) if images else None
    if config.show == "reconstructions":
        assert means is not None
        originals = [Point(image=each.tolist()) for each in images]
        return originals + _of(means)
    shares = torch.linspace(0, 1, config.count).tolist()
    if config.show == "walk":
        starts = _drawn(config, network, 1) if means is None else [means[0]]
        moved = [(2 * share - 1) * REACH for share in shares]
        return _of([_moved(start, config.unit, to) for start in starts for to in moved])
    if means is not None:
        return _of([torch.lerp(means[0], means[1], share) for share in shares])
    return _of(_drawn(config, network, config.count))


def _drawn(config: SampleVaeRun, network: VAE, count: int) -> list[Tensor]:
    """Return `count` random points of each class: of seeds, or from one seed's to another's."""
    points = []
    for request in noise_requests(
        config.labels, network, count=count, seed=config.seed, interpolate_to=config.interpolate_to
    ):
        assert request.seed is not None
        point = _random(request.seed, network, request.label)
        if request.interpolate_to is not None:
            other = _random(request.interpolate_to, network, request.label)
            point = slerp(point, other, request.share)
        points.append(point)
    return points


def _of(points: Sequence[Tensor] | Tensor) -> list[Point]:
    return [Point(at=tuple(each.tolist())) for each in points]


def _random(seed: int, network: VAE, label: int | None) -> Tensor:
    """Return the random point (Z,) of a seed, of a class or of any."""
    generator = torch.Generator().manual_seed(fold_in(seed, "point"))
    return network.prior.draw(generator, label)


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
