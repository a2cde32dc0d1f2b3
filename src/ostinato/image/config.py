"""The configurations of image trainings, and of sampling with a denoiser. Imports no torch."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, Self

from ostinato.arguments import require, require_at_least, require_types
from ostinato.journal import Place, RunConfig, beside
from ostinato.loop import check_seed, parse
from ostinato.train import TrainingConfig, TrainingRun, argument, option

RECIPE = TrainingConfig(
    steps=2000,
    batch_tokens=64,
    optimizer="muon",
    lr=0.02,
    warmup_steps=50,
    min_lr_ratio=0.01,
    ema_decay=0.985,  # 0.9 to 0.998 gave a distance of 1.45 to 1.47, none 1.50 (docs/log.md)
    valid_every=200,
    sample_every=400,
)
"""Training settings of denoisers; `batch_tokens` counts images."""


def image_places(sources: Sequence[str | Path]) -> tuple[str, ...]:
    """Return sources of images for a record: absolute paths, and names of data sets as they are."""
    return tuple(os.path.abspath(each) if os.path.exists(each) else str(each) for each in sources)


@dataclass(frozen=True, kw_only=True)
class ImageSetRun(TrainingRun):
    """A training on images; `sources`, `size` and `gray` are those of `read_images`.

    `hold_out` is the share to validate with.
    """

    free: ClassVar[frozenset[str]] = TrainingRun.free | {"sources"}

    sources: tuple[Place, ...] = argument("FOLDER|digits-8x8|IDX-FILE…")
    size: int | None = option(None, "Scale images to this side, 8 to 64.  [default: as is]")
    gray: bool | None = option(
        None, "Channels.  [default: gray if all images are]", flag="--gray/--color"
    )
    hold_out: float = option(0.1, "Share of the data to validate on.")

    def __post_init__(self) -> None:
        super().__post_init__()
        require(0 <= self.hold_out < 1, "hold_out", "in [0, 1)", self.hold_out)

    def placed(self) -> Self:
        """Return the configuration for a record: paths are absolute, names of data sets as is."""
        return replace(self, sources=image_places(self.sources))


@dataclass(frozen=True, kw_only=True)
class ImageTrainingRun(ImageSetRun):
    """A denoiser trained on images. `classes` None: conditioned on the classes if there are any."""

    kind: ClassVar[str] = "train image"
    prepare: ClassVar[str] = "ostinato.image:prepare_image_training"

    training: TrainingConfig = RECIPE
    classes: bool | None = option(
        None,
        "Condition on the classes.  [default: if there are any]",
        flag="--classes/--unconditional",
    )
    channels: int = option(32, "Base channels of the U-Net; a multiple of 16.")
    blocks: int = option(1, "Residual blocks per level of the U-Net.")
    label_dropout: float = option(
        0.1, "Probability of dropping the label in training (classifier-free guidance)."
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        right = self.channels >= 16 and self.channels % 16 == 0
        require(right, "channels", "a multiple of 16", self.channels)
        require_at_least(1, blocks=self.blocks)
        require(0 <= self.label_dropout < 1, "label_dropout", "in [0, 1)", self.label_dropout)


ALL_CHECKPOINTS = 10_000
"""Checkpoints that `checkpoint_every` keeps: one for every step to branch from."""


@dataclass(frozen=True, kw_only=True)
class ImageChecks:
    """Checks of an image; one that fails is noised again, in at most `rounds` drafts.

    None: the check is left out. `min_class_probability` is that of the image's class by the
    `classifier`. `clip_text` is compared with the image by `clip_model`; None is the prompt.
    """

    hashes: ClassVar[frozenset[str]] = frozenset({"classifier_weights", "clip_weights"})

    min_class_probability: float | None = None
    classifier: Place = "digits"
    classifier_weights: str = ""
    min_sharpness: float | None = None
    clip_model: Place | None = None
    clip_weights: str = ""
    clip_text: str | None = None
    min_clip_score: float = 0.25
    rounds: int = 3

    def __post_init__(self) -> None:
        require_types(self)
        require_at_least(1, rounds=self.rounds)
        for name, least in (
            ("min_class_probability", 0),
            ("min_sharpness", 0),
            ("min_clip_score", -1),
        ):
            value = getattr(self, name)
            require(value is None or least <= value <= 1, name, f"in [{least}, 1]", value)

    @property
    def any(self) -> bool:
        """Whether there is a check."""
        checked = (self.min_class_probability, self.min_sharpness, self.clip_model)
        return any(each is not None for each in checked)


@dataclass(frozen=True, kw_only=True)
class SourceImage:
    """An image to vary, or with a mask to inpaint, by path and by the SHA-256 of its file.

    A file may be moved: what counts is its content. `strength` is as in `ImageRequest`; None is
    0.5, and 1 with a mask.
    """

    free: ClassVar[frozenset[str]] = frozenset({"path", "mask"})

    path: Path
    content: str
    strength: float | None = None
    mask: Path | None = None
    mask_content: str = ""

    def __post_init__(self) -> None:
        require_types(self)


@dataclass(frozen=True, kw_only=True)
class ImagesRun(RunConfig):
    """What all runs that make images with a model share.

    `count` images of each class or prompt have consecutive seeds from `seed` on. `out` is a file or
    a folder. `weights` is a hash of the model's files.
    """

    writes: ClassVar[tuple[str, ...]] = ("out",)
    free: ClassVar[frozenset[str]] = frozenset({"out"})
    hashes: ClassVar[frozenset[str]] = frozenset({"weights"})
    endings: ClassVar[tuple[str, ...]] = (".png",)

    model: Place
    out: Path
    count: int = 1
    seed: int = 0
    checks: ImageChecks = ImageChecks()
    weights: str = ""

    def __post_init__(self) -> None:
        require_types(self)
        require_at_least(1, count=self.count)
        check_seed(self.seed)
        right = self.out.suffix.lower() in ("", *self.endings)
        expected = f"{', '.join(f'a {ending}' for ending in self.endings)} or a folder"
        require(right, "out", expected, str(self.out))

    def branched(self, name: str) -> Self:
        """Return the configuration of a branch: it writes beside this one."""
        return replace(self, out=beside(self.out, name, self.out.suffix))


@dataclass(frozen=True, kw_only=True)
class ImageSamplingRun(ImagesRun):
    """What runs of denoisers and of pipelines share: images that are made step by step.

    `each` is the stop condition of one image, in Python's spelling. `out` may also be a .gif of the
    steps. `show_steps` draws the steps of each image into it. `caption` writes below an image what
    it is; an image is enlarged by `scale`; a .gif shows a step for `pace` seconds.
    """

    free: ClassVar[frozenset[str]] = ImagesRun.free | {
        *("show_steps", "checkpoint_every", "caption", "scale", "pace")
    }
    endings: ClassVar[tuple[str, ...]] = (".png", ".gif")

    show_steps: bool = False
    caption: bool = False
    scale: int | None = None
    pace: float | None = None
    each: str | None = None
    checkpoint_every: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("checkpoint_every", "scale"):
            value = getattr(self, name)
            require_at_least(1, **{name: 1 if value is None else value})
        if self.pace is not None:
            require(0.02 <= self.pace <= 60, "pace", "from 0.02 to 60 seconds", self.pace)
            is_gif = self.out.suffix.lower() == ".gif"
            require(is_gif, "out", "a .gif where there is a pace", str(self.out))
        if self.each is not None:
            parse(self.each)


@dataclass(frozen=True, kw_only=True)
class SampleImageRun(ImageSamplingRun):
    """Images that a denoiser samples.

    `labels` are classes by name or number; none: one of any class. Guidance acts at noise levels
    within `guidance_interval`, None being no upper one. With `interpolate_to`, the noise of the
    images goes from that of `seed` to that of this one.
    """

    kind: ClassVar[str] = "sample image"

    labels: tuple[str, ...] = ()
    steps: int = 20
    solver: str = "dpmpp_2m"
    guidance: float = 1.0
    guidance_interval: tuple[float, float | None] = (0.0, None)
    interpolate_to: int | None = None
    source: SourceImage | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        require_at_least(1, steps=self.steps)
