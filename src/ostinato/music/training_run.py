"""Training a model of chorales, as a run."""

from __future__ import annotations

from pathlib import Path

from ostinato.errors import InputError
from ostinato.music.config import MusicTrainingRun
from ostinato.music.data import examples, read_pieces
from ostinato.music.tokens import music_model
from ostinato.train import (
    TextTask,
    TrainingParts,
    save_model,
    task_parts,
)


def prepare_music_training(config: MusicTrainingRun) -> TrainingParts:
    """Read the pieces, and make the model. Raises `InputError` for bad input."""
    pieces = read_pieces(config.source, hold_out=config.hold_out, seed=config.training.seed)
    train, valid = examples(pieces.train), examples(pieces.valid, every_key=False)
    if not train:
        raise InputError(
            f"{config.source} must hold pieces that four voices can sing, got none. Transpose "
            "single voices by octaves."
        )
    model = music_model(
        layers=config.layers, width=config.width, heads=config.heads, seed=config.training.seed
    )
    network = model.llama()

    def save(folder: Path) -> None:
        save_model(folder, network, model.tokenizer)

    return task_parts(
        network,
        TextTask(train, valid),
        save=save,
        hashes={"data": pieces.fingerprint()},
        examples=(len(train), len(valid)),
    )
