"""Builds runs of images from their configurations: requests, checks, the loop."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from ostinato.errors import InputError
from ostinato.image.checks import ClassifiedAs, Sharpness
from ostinato.image.classifier import Classifier, classifier_folder, load_classifier
from ostinato.image.clip import ClipScore, load_clip
from ostinato.image.config import (
    ALL_CHECKPOINTS,
    ImageChecks,
    ImageSamplingRun,
    SampleImageRun,
    SourceImage,
)
from ostinato.image.fixed_batches import Denoiser, ImageNetwork
from ostinato.image.image_request import ImageRequest
from ostinato.image.image_work import ImageWork, require_scale
from ostinato.image.sampling import Renoise, denoise_loop
from ostinato.image.unet import denoiser_folder, load_denoiser
from ostinato.journal import RunSource, require_unchanged
from ostinato.loop import Check, CheckpointSchedule, Never, accept, parse
from ostinato.media import image_io
from ostinato.models import file_hash, folder_digest


def build_sample_image(config: SampleImageRun, *, run: RunSource | None = None) -> ImageWork:
    """Build the run that samples images with a denoiser."""
    require_unchanged("The model's files", config.weights, denoiser_digest(config.model))
    network = load_denoiser(config.model)
    if config.scale is not None:
        require_scale(config.scale, network.size, config.count * max(1, len(config.labels)))
    low, high = config.guidance_interval
    change = {} if config.source is None else _change(config.source, network)
    requests = noise_requests(
        config.labels,
        network,
        count=config.count,
        seed=config.seed,
        interpolate_to=config.interpolate_to,
        **change,
    )
    loop = denoise_loop(
        requests,
        model=network,
        steps=config.steps,
        solver=config.solver,
        guidance=config.guidance,
        guidance_interval=(low, math.inf if high is None else high),
        seed=config.seed,
        **image_loop_arguments(config, image_checks(config.checks, network), run),
    )
    captions = [_caption(request, network) for request in requests]
    return ImageWork(loop=loop, out=config.out, count=len(requests), **shown_as(config, captions))


def shown_as(config: ImageSamplingRun, captions: Sequence[str]) -> dict[str, Any]:
    """Return how a run's images are shown, as arguments of `ImageWork`."""
    shown: dict[str, Any] = {"show_steps": config.show_steps, "scale": config.scale}
    if config.caption:
        shown["captions"] = captions
    return shown if config.pace is None else {**shown, "pace": config.pace}


def _caption(request: ImageRequest, network: ImageNetwork) -> str:
    """Return the class and the seed of an image in words."""
    seed = f"seed {request.seed}"
    if request.interpolate_to is not None:
        seed += f" to {request.interpolate_to}, {request.share:.0%}"
    if request.label is None:
        return seed
    names = _names_of(network)
    return f"{names[request.label] if names else request.label}, {seed}"


def image_loop_arguments(
    config: ImageSamplingRun, checks: Sequence[Check], run: RunSource | None
) -> dict[str, Any]:
    """Return what the loops of denoisers and of pipelines take alike."""
    every = config.checkpoint_every
    return {
        "each": Never() if config.each is None else parse(config.each),
        "checks": checks,
        "on_stop": Renoise(rounds=config.checks.rounds) if checks else accept,
        "run": run,
        "checkpoint": every and CheckpointSchedule(steps=every, keep=ALL_CHECKPOINTS),
    }


def denoiser_digest(model: str | Path) -> str:
    """Return a hash of a denoiser's files. Raises `ModelError` where there is none."""
    return folder_digest(denoiser_folder(model))


def classifier_digest(classifier: str | Path) -> str:
    """Return a hash of a classifier's files. Raises `ModelError` where there is none."""
    return folder_digest(classifier_folder(classifier))


# Requests ---------------------------------------------------------------------------------------


def noise_requests(
    labels: Sequence[str],
    network: ImageNetwork,
    *,
    count: int,
    seed: int,
    interpolate_to: int | None = None,
    **change: Any,
) -> list[ImageRequest]:
    """Return `count` requests per class: consecutive seeds, or a path from one seed to another.

    `labels` are names or numbers of the network's classes; `change` are other fields of all.
    """
    chosen: list[int | None] = [_class(each, network) for each in labels]
    noises: list[dict[str, Any]]
    if interpolate_to is None:
        noises = [{"seed": seed + n} for n in range(count)]
    else:
        last = max(1, count - 1)
        to = {"seed": seed, "interpolate_to": interpolate_to}
        noises = [{**to, "share": n / last} for n in range(count)]
    return [
        ImageRequest(label=label, **noise, **change)
        for label in chosen or [None]
        for noise in noises
    ]


def _class(label: str, network: ImageNetwork) -> int:
    """Return the number of a class that is given by name or number."""
    names = _names_of(network)
    # Names first: a class may be called "3" and have another number.
    if label in names:
        return names.index(label)
    if label.isdigit() and int(label) < network.classes:
        return int(label)
    if not network.classes:
        raise InputError(f"A label must be left out: the model has no classes, got {label!r}.")
    known = ", ".join(names) or f"0 to {network.classes - 1}"
    raise InputError(f"A label must be one of {known}, got {label!r}.")


def _names_of(network: ImageNetwork) -> tuple[str, ...]:
    return tuple(getattr(getattr(network, "config", None), "names", ()))


def _change(source: SourceImage, network: Denoiser) -> Mapping[str, Any]:
    """Return the fields of an `ImageRequest` that changes another image."""
    size = network.size
    _require_content(source.path, source.content)
    image = image_io.read(source.path, channels=network.channels, size=size)
    strength = source.strength
    if source.mask is None:
        return {"image": image, "strength": 0.5 if strength is None else strength}
    _require_content(source.mask, source.mask_content)
    strength = 1.0 if strength is None else strength
    return {"image": image, "strength": strength, "mask": read_mask(source.mask, size)}


def _require_content(path: Path, content: str) -> None:
    if path.is_file():  # else reading it says so
        require_unchanged(f"The pixels of {path}", content, file_hash(path))


def read_mask(path: Path, size: int) -> Tensor:
    """Return a mask (H, W), 1 where the image is white; transparent parts are not."""
    return (image_io.read(path, channels=1, size=size, background=0)[0] > 0).float()


# Checks -----------------------------------------------------------------------------------------


def image_checks(config: ImageChecks, network: ImageNetwork | None) -> list[Check]:
    """Return the checks of images from a denoiser, or from a pipeline (None).

    Raises `InputError` for checks that do not fit the model.
    """
    checks: list[Check] = []
    if config.min_sharpness is not None:
        checks.append(Sharpness(least=config.min_sharpness))
    if config.clip_model is not None:
        if network is not None and config.clip_text is None:
            # Denoisers take classes; only a pipeline has a prompt to compare with.
            raise InputError("clip_model must come with clip_text, what the image is to show.")
        digest = folder_digest(config.clip_model)
        require_unchanged("The CLIP model's files", config.clip_weights, digest)
        clip = load_clip(config.clip_model)
        words = config.clip_text or ""
        checks.append(ClipScore(clip=clip, words=words, least=config.min_clip_score))
    if config.min_class_probability is not None:
        checks.append(_classified(config, config.min_class_probability, network))
    return checks


def _classified(config: ImageChecks, least: float, network: ImageNetwork | None) -> Check:
    if network is None:
        raise InputError(
            "min_class_probability must be left out with a pipeline, whose images have no class, "
            f"got {least}. Take clip_model or min_sharpness."
        )
    digest = classifier_digest(config.classifier)
    require_unchanged("The classifier's files", config.classifier_weights, digest)
    classifier = load_classifier(config.classifier)
    _require_same_images(classifier, network)
    return ClassifiedAs(classifier=classifier, least=least)


def _require_same_images(classifier: Classifier, network: ImageNetwork) -> None:
    """Raise `InputError` for a classifier of other images or classes than the network's."""
    names = _names_of(network)
    made = (network.channels, network.size, names)
    read = (classifier.config.channels, classifier.config.size, classifier.names)
    # A network without named classes is compared by the shape of its images only.
    if (names and made != read) or made[:2] != read[:2]:
        raise InputError(
            f"The classifier must read the model's images, {_described(*made)}, got one for "
            f"{_described(*read)}. Name another classifier, or check with min_sharpness."
        )


def _described(channels: int, size: int, names: Sequence[str]) -> str:
    return f"{size} x {size} pixels, {channels} channel(s), classes {', '.join(names) or 'none'}"
