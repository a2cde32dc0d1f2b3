"""The configurations of trainings of image tokens, their recipes, and of sampling. No torch."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, Literal, Self

from ostinato.arguments import require, require_at_least, require_types
from ostinato.image import ImageSetRun
from ostinato.journal import Place, RunConfig, beside
from ostinato.loop import check_seed
from ostinato.train import TrainingConfig, option

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
    prepare: ClassVar[str] = "ostinato.image.tokens:prepare_codec_training"

    training: TrainingConfig = CODES_RECIPE


@dataclass(frozen=True, kw_only=True)
class ImageTokenTrainingRun(ImageSetRun):
    """A model that generates images token by token.

    `codec` is the folder of a model or autoencoder whose codes it learns, which `codec_weights` is
    a hash of. None: an autoencoder is trained first, for `codec_steps`, into `out/codes`. `levels`
    are those of the method pixels, which needs none.
    """

    kind: ClassVar[str] = "train image-tokens"
    prepare: ClassVar[str] = "ostinato.image.tokens:prepare_image_token_training"
    free: ClassVar[frozenset[str]] = ImageSetRun.free | {"codec"}
    hashes: ClassVar[frozenset[str]] = ImageSetRun.hashes | {"codec_weights"}

    training: TrainingConfig = RECIPE
    method: Method = option(
        "row",
        "Order of generation: code by code, pixel by pixel, MaskGIT, or discrete diffusion.",
    )
    levels: int = option(8, "Levels per channel, for --method pixels.")
    codec_steps: int = option(CODES_RECIPE.steps, "Training steps of the autoencoder.")
    codec: Path | None = option(
        None, "Reuse the autoencoder of this model; its images must have the same shape."
    )
    layers: int = option(4, "Transformer layers.")
    width: int = option(96, "Hidden size.")
    heads: int = option(3, "Attention heads.")
    attribute_dropout: float = option(0.2, "Probability of dropping each attribute in training.")
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


@dataclass(frozen=True, kw_only=True)
class SampleImageTokensRun(RunConfig):
    """`count` images for each prompt, in rows of the .png `out`.

    `temperature`, `guidance` and `noise` are those of `CodeSettings`, `steps` is for the method
    unmask; None is the method's own. `weights` is a hash of the model's files.
    """

    kind: ClassVar[str] = "sample image-tokens"
    writes: ClassVar[tuple[str, ...]] = ("out",)
    free: ClassVar[frozenset[str]] = frozenset({"out"})
    hashes: ClassVar[frozenset[str]] = frozenset({"weights"})

    model: Place
    out: Path
    prompts: tuple[str, ...] = ("",)
    count: int = 1
    temperature: float | None = None
    guidance: float | None = None
    noise: float | None = None
    steps: int | None = None
    seed: int = 0
    weights: str = ""

    def __post_init__(self) -> None:
        require_types(self)
        require_at_least(1, count=self.count, steps=1 if self.steps is None else self.steps)
        check_seed(self.seed)
        require(bool(self.prompts), "prompts", "at least one prompt", self.prompts, 'Give ("",).')
        require(self.out.suffix.lower() == ".png", "out", "a .png file", str(self.out), "Name one.")

    def branched(self, name: str) -> Self:
        """Return the configuration of a branch: it writes beside this one."""
        return replace(self, out=beside(self.out, name, self.out.suffix))
