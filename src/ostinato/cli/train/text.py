"""`ostinato train` and `ostinato train text`: train a language model until it is good enough."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ostinato.cli.train import progress
from ostinato.cli.train.image import image
from ostinato.cli.train.image_tokens import image_tokens
from ostinato.cli.train.music import music
from ostinato.cli.train.options import TrainingOptions, settings_of, training_options
from ostinato.text import TextTrainingConfig
from ostinato.train import TrainingConfig

if TYPE_CHECKING:
    from ostinato.cli.presenters import View
    from ostinato.cli.run_loop import Exit
    from ostinato.journal import RunSource
    from ostinato.loop import Step
    from ostinato.train import TrainingRun, TrainingWork

TEXT_SETTINGS = settings_of(TextTrainingConfig, defaults=True)
SETTINGS = settings_of(TrainingConfig, defaults=True)
SETTINGS["sample_every"] = SETTINGS["sample_every"]._replace(
    help="Steps between samples; 0: none.  [default: as --valid-every]"
)


@click.group()
def train() -> None:
    """Train a model until it is good enough; the same command resumes."""


train.add_command(image)
train.add_command(image_tokens)
train.add_command(music)


@train.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--from", "start", metavar="MODEL", help="Fine-tune this model, not a new one.")
@click.option("--merge", is_flag=True, help="Save the model with the LoRA adapter merged.")
@click.option(
    "--valid",
    multiple=True,
    type=click.Path(path_type=Path),
    help="Validation file; repeatable.",
)
@training_options(TEXT_SETTINGS | SETTINGS)
def text(
    files: tuple[Path, ...],
    start: str | None,
    merge: bool,
    valid: tuple[Path, ...],
    options: TrainingOptions,
) -> None:
    """Train a language model on FILES: plain text, or JSONL with text, prompts or messages.

    Without --from the network is new. Of messages only the assistant's turns count in the loss.
    """
    from ostinato.models import model_place
    from ostinato.text import TextTrainingRun, prepare_text_training

    typed = options.settings
    training = TrainingConfig(**{name: typed[name] for name in SETTINGS if name in typed})
    if "sample_every" not in typed:
        training = dataclasses.replace(training, sample_every=training.valid_every)
    settings = TextTrainingConfig(
        files=files,
        valid=valid,
        start=None if start is None else model_place(start),
        **{name: typed[name] for name in TEXT_SETTINGS if name in typed},
    )
    config = TextTrainingRun(**options.run_fields(), training=training, text=settings, merge=merge)
    parts = prepare_text_training(config)
    progress.train_until(config, options, parts, show=_show, parts=parts)


def present(config: TrainingRun, run: RunSource | None, view: View) -> Exit:
    """Train a language model, and print its samples."""
    return progress.present(config, run, view, show=_show)


def _show(step: Step, work: TrainingWork) -> str:
    return "  | " + str(step.report["sample"]).strip().replace("\n", "\n  | ")
