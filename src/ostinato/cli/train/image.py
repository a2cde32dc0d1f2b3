"""`ostinato train image`: train a denoiser on images until it is good enough."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import click

from ostinato.cli.options import near
from ostinato.cli.train.command import TrainCommand
from ostinato.cli.train.line import TRAINING
from ostinato.cli.train.settings import Setting

if TYPE_CHECKING:
    from ostinato.loop import Step
    from ostinato.train import TrainingWork

BATCHES_OF_IMAGES = {
    "batch_tokens": Setting(click.IntRange(min=1), "Images in a batch.", "--batch-size"),
    "seed": Setting(int, "Seed of the data order, the weights, the noise and the split."),
}


def _line(report: Mapping[str, Any]) -> str:
    """Add the losses by noise level, where a step validates those of the validation."""
    prefix = "loss/valid_" if "loss/valid" in report else "loss/"
    levels = (
        f"{name.removeprefix(prefix).replace('_', ' ')} {value:.3f}"
        for name, value in report.items()
        if name.startswith(f"{prefix}sigma_")
    )
    return "  ".join((TRAINING(report), *levels))


def save_grid(step: Step, work: TrainingWork) -> str:
    """Write the sample of a step, a grid of images, as a PNG; return the line about it.

    Step and losses stand below it.
    """
    from ostinato.media import save_captioned

    process: Any = work.process
    pixels: Any = step.report["sample"]  # (C, H, W), bytes
    path = work.config.out / "samples" / f"step-{step.position:06}.png"
    words = [f"step {step.position:,}", *_measured(step.report, work.config.measure)]
    save_captioned(pixels / 127.5 - 1, words, path, side=process.network.size)
    return f"  samples: {near(path)}"


def _measured(report: Mapping[str, Any], measure: str) -> Iterator[str]:
    """Yield the losses of a report in words, and what the training is measured by."""
    for name, value in report.items():
        is_loss = name.endswith("/loss") or (name.startswith("loss/") and "sigma" not in name)
        if (is_loss or name == measure) and isinstance(value, float):
            yield f"{name} {value:.4g}"


IMAGE = TrainCommand(
    kind="train image",
    help="""Train a denoiser on images: a FOLDER of files, `digits-8x8`, or IDX files (MNIST's).

    The sub-folders of FOLDER are classes. `digits-8x8` are the 1,797 scans of scikit-learn.
    A grid of samples is written to OUT/samples during the training.
    """,
    line=_line,
    sample=save_grid,
    overrides=BATCHES_OF_IMAGES,
)
