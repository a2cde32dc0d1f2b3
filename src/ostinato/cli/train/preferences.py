"""`ostinato train preferences`: learn from pairs of a better and a worse text (DPO)."""

from __future__ import annotations

from ostinato.cli.train.command import TrainCommand
from ostinato.cli.train.line import line

PREFERENCES = TrainCommand(
    kind="train preferences",
    help="""Train a language model on pairs of texts in FILES: JSONL with prompt, chosen, rejected.

    ostinato runs pairs NAME FILE makes such a file of a job: each accepted reply beside the drafts
    that were discarded for it. The loss is that of DPO.
    """,
    line=line(
        "epoch {epoch:6.2f}",
        "loss {loss/train:.4f}",
        "accuracy {accuracy:4.0%}",
        "margin {margin:.2f}",
        "valid {loss/valid:.4f}",
    ),
)
