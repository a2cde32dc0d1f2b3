"""The steps of images: collected while they are sampled or read from a run, then written.

Knows no model and no option of the command.
"""

from __future__ import annotations

import os
import sys
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ostinato.cli.run_loop import rows_of

if TYPE_CHECKING:
    from torch import Tensor

    from ostinato.journal import Run
    from ostinato.loop import Loop, Step

Trace = dict[str, list[tuple["Tensor", "Tensor"]]]
"""By item: the noisy image and the clean prediction (C, H, W) of every step."""


def sample_images(
    loop: Loop, run_name: str | None, *, steps: bool
) -> tuple[list[dict[str, Any]], Trace]:
    """Run the loop; return all rows by index, and the steps of every image where they are wanted.

    Raises `RunError` where a run does not hold them.
    """
    trace: Trace = defaultdict(list)

    def watch(step: Step) -> None:
        for key, lane in step.lanes.items():
            _add(trace[key], lane.position, lane.report)

    def read(run: Run) -> None:
        # The history also holds the steps of earlier sessions, and of a branch's parents.
        trace.clear()
        for record in run.history():
            lanes: Any = record.report.get("lanes", {})
            for key, lane in lanes.items():
                _add(trace[key], lane["position"], lane["report"])

    if not steps:
        return rows_of(loop, run_name), trace
    return rows_of(loop, run_name, watch=watch, read=read), trace


def _add(steps: list[tuple[Tensor, Tensor]], position: int, report: Any) -> None:
    """Add the two images of a step; drop the steps that the image was taken back behind."""
    from ostinato.journal import tensor_of

    del steps[position - 1 :]
    if "sigma_next" not in report:  # a pipeline: it reports latents, and an image if decoded
        if "image" in report:
            decoded = tensor_of(report["image"]) / 127.5 - 1
            steps.append((decoded, decoded))
        return
    noisy, clean = (tensor_of(report[name]).float() for name in ("noisy", "clean"))
    # Scaled to variance 1, as a variance-preserving process shows it: noise of sigma 80 would
    # otherwise leave no image to see.
    steps.append((noisy / (1 + report["sigma_next"] ** 2) ** 0.5, clean))


# Output -----------------------------------------------------------------------------------------


def write_images(
    rows: list[dict[str, Any]], trace: Trace, target: Path, *, show_steps: bool
) -> None:
    """Write the images, or their steps, and print them where the terminal shows colors."""
    import torch

    from ostinato.media import image_io

    images = [torch.as_tensor(row["output"], dtype=torch.float32) for row in rows]  # (C, H, W)
    steps = [trace[row["key"]] for row in rows]
    if show_steps:
        both = any(a is not b for pairs in steps for a, b in pairs)
        sides = (0, 1) if both else (1,)
        strips = [[pair[side] for pair in pairs] for pairs in steps for side in sides]
        sheet = image_io.tiled(strips)
    else:
        sheet = image_io.tiled(image_io.in_grid(images))
    side = images[0].size(-1)
    if target.suffix.lower() == ".gif":
        image_io.save_gif(_frames(steps), target, side=side)
    elif target.suffix:
        image_io.save(sheet, target, side=side)
    else:
        for row, each in zip(rows, images, strict=True):
            image_io.save(each, target / f"{row['index']:04}.png", side=side)
    if _shows_color() and sheet.size(2) <= os.get_terminal_size().columns:
        click.echo(image_io.for_terminal(sheet))


def _frames(steps: list[list[tuple[Tensor, Tensor]]]) -> list[Tensor]:
    """Return a grid of the noisy images for every step; images that ended early stay."""
    from ostinato.media import image_io

    last = max(len(pairs) for pairs in steps)
    frames = []
    for n in range(last):
        at = [pairs[min(n, len(pairs) - 1)][0] for pairs in steps]
        frames.append(image_io.tiled(image_io.in_grid(at)))
    return frames


def _shows_color() -> bool:
    """Return whether the output is a terminal of 24-bit color (COLORTERM, no-color.org)."""
    colors = os.environ.get("COLORTERM", "") in ("truecolor", "24bit")
    return sys.stdout.isatty() and colors and not os.environ.get("NO_COLOR")
