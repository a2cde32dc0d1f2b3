"""The configurations of image trainings, and their recipe. Imports no torch."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from ostinato.arguments import require, require_at_least
from ostinato.journal import Place
from ostinato.train import TrainingConfig, TrainingRun

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

    sources: tuple[Place, ...]
    size: int | None = None
    gray: bool | None = None
    hold_out: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        require(0 <= self.hold_out < 1, "hold_out", "in [0, 1)", self.hold_out)


@dataclass(frozen=True, kw_only=True)
class ImageTrainingRun(ImageSetRun):
    """A denoiser trained on images. `classes` None: conditioned on the classes if there are any."""

    kind: ClassVar[str] = "train image"

    training: TrainingConfig = RECIPE
    classes: bool | None = None
    channels: int = 32
    blocks: int = 1
    label_dropout: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        right = self.channels >= 16 and self.channels % 16 == 0
        require(right, "channels", "a multiple of 16", self.channels)
        require_at_least(1, blocks=self.blocks)
        require(0 <= self.label_dropout < 1, "label_dropout", "in [0, 1)", self.label_dropout)
