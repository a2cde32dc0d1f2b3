"""`ostinato train text`: train a language model until it is good enough."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ostinato.cli.train.command import TrainCommand
from ostinato.cli.train.line import TRAINING
from ostinato.cli.train.options import TrainingOptions
from ostinato.cli.train.settings import Setting
from ostinato.train import TrainingConfig

if TYPE_CHECKING:
    from ostinato.loop import Step
    from ostinato.train import TrainingWork


def _typed(values: dict[str, Any], options: TrainingOptions) -> dict[str, Any]:
    """Sample at each validation, and name the model to start from as a record does."""
    from ostinato.models import model_place

    start = {"start": model_place(values["start"])} if "start" in values else {}
    every = values.get("valid_every", TrainingConfig.valid_every)
    return {"sample_every": every} | values | start


def _sample(step: Step, work: TrainingWork) -> str:
    return "  | " + str(step.report["sample"]).strip().replace("\n", "\n  | ")


TEXT = TrainCommand(
    kind="train text",
    help="""Train a language model on FILES: plain text, or JSONL with text, prompts or messages.

    Without --from the network is new. Of messages only the assistant's turns count in the loss.
    """,
    line=TRAINING,
    sample=_sample,
    overrides={
        "sample_every": Setting(int, "Steps between samples; 0: none.  [default: as --valid-every]")
    },
    typed=_typed,
)
