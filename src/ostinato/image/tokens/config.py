"""The configurations of trainings of image token models, and their recipes. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, Literal, Self

from ostinato.arguments import require, require_at_least
from ostinato.image import ImageSetRun
from ostinato.train import TrainingConfig

Method = Literal["row", "pixels", "unmask", "coarse"]
"""Code after code; pixel after pixel; the most confident codes first; out of noise."""

CODES_RECIPE = TrainingConfig(
    steps=400,
    batch_tokens=64,
    optimizer="muon",
    lr=0.01,
    warmup_steps=20,
    min_lr_ratio=0.01,
    valid_every=100,
)
"""Training settings of the autoencoder, for minutes on one thread; `batch_tokens` counts images."""

RECIPE = TrainingConfig(
    steps=400,
    batch_tokens=64,
    optimizer="muon",
    lr=0.02,  # 0.04 gave 85% right classes by `row`, instead of 88% (docs/log.md)
    warmup_steps=50,
    min_lr_ratio=0.01,
    ema_decay=0.99,
    valid_every=100,
)
"""Training settings of the network, for minutes on one thread; `batch_tokens` counts images."""


@dataclass(frozen=True, kw_only=True)
class CodecTrainingRun(ImageSetRun):
    """The autoencoder of an image token model: a run that the model's training calls."""

    kind: ClassVar[str] = "train image-codec"

    training: TrainingConfig = CODES_RECIPE


@dataclass(frozen=True, kw_only=True)
class ImageTokenTrainingRun(ImageSetRun):
    """A model that generates images token by token.

    `codec` is the folder of a model or autoencoder whose codes it learns, which `codec_weights` is
    a hash of. None: an autoencoder is trained first, for `codec_steps`, into `out/codes`. `levels`
    are those of the method pixels, which needs none.
    """

    kind: ClassVar[str] = "train image-tokens"
    free: ClassVar[frozenset[str]] = ImageSetRun.free | {"codec"}
    hashes: ClassVar[frozenset[str]] = ImageSetRun.hashes | {"codec_weights"}

    training: TrainingConfig = RECIPE
    method: Method = "row"
    levels: int = 8
    codec: Path | None = None
    codec_steps: int = CODES_RECIPE.steps
    layers: int = 4
    width: int = 96
    heads: int = 3
    attribute_dropout: float = 0.2
    codec_weights: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(2 <= self.levels <= 256, "levels", "2 to 256", self.levels, "Give few, such as 4.")
        require_at_least(1, codec_steps=self.codec_steps)
        dropout = self.attribute_dropout
        require(0 <= dropout < 1, "attribute_dropout", "in [0, 1)", dropout, "Give 0.2.")

    def branched(self, name: str) -> Self:
        """Return the configuration of a branch: a folder of its own, and the same autoencoder."""
        codec = self.codec or (None if self.method == "pixels" else self.out / "codes")
        return replace(super().branched(name), codec=codec)
