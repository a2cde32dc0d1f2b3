"""Training an image token model, as a run, which calls that of its autoencoder."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ostinato.errors import InputError, RunError
from ostinato.image import Images, ReconstructionTask, hold_out, read_image_set
from ostinato.image.tokens.attributes import Attributes
from ostinato.image.tokens.config import CODES_RECIPE, CodecTrainingRun, ImageTokenTrainingRun
from ostinato.image.tokens.model import new_image_token_model, task_of
from ostinato.image.tokens.pixel_quantizer import Codec, PixelQuantizer
from ostinato.image.tokens.vq import VQ, VQConfig
from ostinato.journal import Journal, Run, RunSource, StopKind
from ostinato.models import hash_parts
from ostinato.runs import record_called
from ostinato.train import (
    TrainingConfig,
    TrainingParts,
    TrainingWork,
    build_training,
    planned,
    require_same_data,
    task_parts,
)

DriveCodec = Callable[[CodecTrainingRun, RunSource | None, Run | None], object]
"""Drives the training of an autoencoder to its end: its configuration, its run, who calls it."""

# The autoencoder --------------------------------------------------------------------------------


def prepare_codec_training(config: CodecTrainingRun) -> TrainingParts:
    """Read the images, and make the autoencoder. Raises `InputError` for bad input."""
    images = read_image_set(config)
    train, valid = hold_out(images, config.hold_out, seed=config.training.seed)
    network = VQ(VQConfig.for_images(images.channels, images.size), seed=config.training.seed)
    return task_parts(
        network,
        ReconstructionTask(train, valid),
        save=network.save,
        hashes={"data": images.fingerprint()},
        examples=(len(train), len(valid)),
    )


def drive_codec(config: CodecTrainingRun, run: RunSource | None, caller: Run | None) -> None:
    """Train an autoencoder to its end. Raises `RunError` where it is paused."""
    work = build_training(config, run=run)
    stopped = work.loop.run()
    work.finish()
    recorded = work.loop.recorded_as
    paused = stopped.kind is StopKind.PERSON if recorded is None else recorded.status == "paused"
    if paused:
        raise RunError(
            f"The autoencoder must be trained before the model, got a pause: {stopped.sentence} "
            "Build the model's run again to resume."
        )


# The model --------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class ImageTokenData:
    """What an image token model is trained on; `codec` is None where it is to be trained first."""

    config: ImageTokenTrainingRun
    train: Images
    valid: Images
    codec: Codec | None
    hashes: Mapping[str, str]

    @property
    def lengths(self) -> Sequence[int]:
        """One for each image to train on."""
        return [1] * len(self.train)

    def steps_per_second(self, config: TrainingConfig) -> float:
        """Measure how fast the network trains; the speed does not depend on the codes."""
        codec = self.codec or VQ(VQConfig.for_images(self.train.channels, self.train.size))
        return self.parts(codec).steps_per_second(config)

    def parts(self, codec: Codec) -> TrainingParts:
        """Return the parts of the training on the codes of a codec."""
        config = self.config
        model = new_image_token_model(
            config.method,
            codec,
            Attributes.of(self.train),
            layers=config.layers,
            width=config.width,
            heads=config.heads,
            seed=config.training.seed,
        )
        dropout = config.attribute_dropout
        return task_parts(
            model.network,
            task_of(model, self.train, self.valid, attribute_dropout=dropout),
            save=model.save,
            hashes={**self.hashes, "codec_weights": _hash_of(codec)},
            examples=(len(self.train), len(self.valid)),
        )


def prepare_image_token_training(config: ImageTokenTrainingRun) -> ImageTokenData:
    """Read the images, and the autoencoder if it is trained. Raises `InputError` for bad input."""
    images = read_image_set(config)
    train, valid = hold_out(images, config.hold_out, seed=config.training.seed)
    codec: Codec | None = None
    if config.method == "pixels":
        codec = PixelQuantizer(channels=images.channels, size=images.size, levels=config.levels)
    elif config.codec is not None:
        codec = _known_codec(config.codec, images)
    hashes = {"data": images.fingerprint(), "codec_weights": _hash_of(codec)}
    return ImageTokenData(config=config, train=train, valid=valid, codec=codec, hashes=hashes)


def build_image_token_training(
    config: ImageTokenTrainingRun,
    *,
    run: RunSource | None = None,
    prepared: ImageTokenData | None = None,
    drive: DriveCodec = drive_codec,
) -> TrainingWork:
    """Build the training of a model; its autoencoder is trained before, by `drive`, if need be.

    The run is then made before it, as it calls that of the autoencoder. `prepared` is what is
    read already.
    """
    data = prepared or prepare_image_token_training(config)
    require_same_data(config, data.hashes, run)
    codec = data.codec
    if codec is None:
        caller = run if run is None or isinstance(run, Run) else run()
        codec = _trained_codec(config, data, caller, drive)
        run = None if caller is None else lambda: caller
    return build_training(config, run=run, prepared=data.parts(codec))


def _trained_codec(
    config: ImageTokenTrainingRun, data: ImageTokenData, caller: Run | None, drive: DriveCodec
) -> VQ:
    """Train the autoencoder, or resume its run; return it with its best weights."""
    recipe = replace(CODES_RECIPE, steps=config.codec_steps, seed=config.training.seed)
    inner = CodecTrainingRun(
        out=config.out / "codes",
        sources=config.sources,
        size=config.size,
        gray=config.gray,
        hold_out=config.hold_out,
        training=planned(recipe, data, fixed=["steps"]),
        checkpoint_every=config.checkpoint_every,
        data=data.hashes["data"],
    )
    if caller is None:
        drive(inner, None, None)
    else:
        with Journal(caller.database.path) as journal:
            drive(inner, record_called(journal, caller, inner, "codes"), caller)
    # Read back, as the network holds the last weights and not the best.
    return VQ.load(inner.out)


def _known_codec(folder: Path, images: Images) -> VQ:
    """Read the autoencoder of another model. Raises `InputError` for images of another shape."""
    # The folder of a whole model, or that of its autoencoder alone.
    codec = VQ.load(folder / "codes" if (folder / "codes").is_dir() else folder)
    c = codec.config
    if (c.channels, c.size) != (images.channels, images.size):
        raise InputError(
            f"--codec must be of images of {images.channels} channels and {images.size} pixels, "
            f"got {c.channels} and {c.size}. Give --size and --gray or --color as it was trained."
        )
    return codec


def _hash_of(codec: Codec | None) -> str:
    """Return a hash of what decides an image's codes; empty where it is not known yet."""
    return "" if codec is None else hash_parts([codec.fingerprint()])
