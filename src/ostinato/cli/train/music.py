"""`ostinato train music`: train a language model on chorales of four voices."""

from ostinato.cli.train.command import TrainCommand
from ostinato.cli.train.line import TRAINING

MUSIC = TrainCommand(
    kind="train music",
    help="""Train on music for four voices: SOURCE is a FOLDER of MIDI files, or a JSON file.

    The JSON file holds chorales in the format of the JSB-Chorales-dataset (its quarter.json). Each
    piece is transposed to every key in which it can be sung.
    """,
    line=TRAINING,
    overrides={"sample_every": None},
)
