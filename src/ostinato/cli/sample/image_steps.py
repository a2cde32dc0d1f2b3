"""What images went through, step by step: kept while they are drawn, or read from a run, and shown.

Knows no model and no option of the command.
"""

from __future__ import annotations

import os
import sys
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ostinato.cli.rows import rows_of

if TYPE_CHECKING:
    from torch import Tensor

    from ostinato.journal import Run
    from ostinato.loop import Loop, Step

Seen = dict[str, list[tuple["Tensor", "Tensor"]]]
"""By item: x and the clean prediction of every step."""


def drawn(loop: Loop, run_name: str | None) -> tuple[list[dict[str, Any]], Seen]:
    """Run the loop; return all rows in their order, and the steps of every image."""
    seen: Seen = defaultdict(list)

    def watch(step: Step) -> None:
        for key, lane in step.lanes.items():
            _keep(seen[key], lane.position, lane.report)

    def read(run: Run) -> None:
        seen.clear()
        for record in run.history():
            lanes: Any = record.report.get("lanes", {})
            for key, lane in lanes.items():
                _keep(seen[key], lane["position"], lane["report"])

    return rows_of(loop, run_name, watch=watch, read=read), seen


def _keep(steps: list[tuple[Tensor, Tensor]], position: int, report: Any) -> None:
    """Keep the two images of a step; what was gone back on is dropped.

    The noisy one is shown as a variance-preserving process has it, so that noise does not outshine
    the image.
    """
    import torch

    del steps[position - 1 :]
    if "sigma_next" not in report:  # of a pipeline: latents, and the image where it was decoded
        if "image" in report:
            decoded = torch.as_tensor(report["image"], dtype=torch.float32)
            steps.append((decoded, decoded))
        return
    noisy, clean = (
        torch.as_tensor(report[name], dtype=torch.float32) for name in ("noisy", "clean")
    )
    steps.append((noisy / (1 + report["sigma_next"] ** 2) ** 0.5, clean))


# Showing ---------------------------------------------------------------------------------------


def write(rows: list[dict[str, Any]], seen: Seen, target: Path, *, show_steps: bool) -> Path:
    """Write what was drawn, and show it where the terminal can."""
    import torch

    from ostinato.media import image_io

    images = [torch.as_tensor(row["output"], dtype=torch.float32) for row in rows]
    steps = [seen[row["key"]] for row in rows]
    if show_steps:
        both = any(a is not b for pairs in steps for a, b in pairs)
        sides = (0, 1) if both else (1,)
        strips = [[pair[side] for pair in pairs] for pairs in steps for side in sides]
        picture = image_io.tiled(strips)
    else:
        picture = image_io.tiled(image_io.in_grid(images))
    side = images[0].size(-1)
    if target.suffix.lower() == ".gif":
        image_io.save_gif(_frames(steps), target, side=side)
    elif target.suffix:
        image_io.save(picture, target, side=side)
    else:
        for row, each in zip(rows, images, strict=True):
            image_io.save(each, target / f"{row['index']:04}.png", side=side)
    if _shows_color() and picture.size(2) <= _width():
        click.echo(image_io.for_terminal(picture))
    return target


def _frames(steps: list[list[tuple[Tensor, Tensor]]]) -> list[Tensor]:
    """Return a grid of the noisy images for every step; what ended early stays."""
    from ostinato.media import image_io

    last = max(len(pairs) for pairs in steps)
    frames = []
    for n in range(last):
        at = [pairs[min(n, len(pairs) - 1)][0] for pairs in steps]
        frames.append(image_io.tiled(image_io.in_grid(at)))
    return frames


def _shows_color() -> bool:
    colors = os.environ.get("COLORTERM", "") in ("truecolor", "24bit")
    return sys.stdout.isatty() and colors and not os.environ.get("NO_COLOR")


def _width() -> int:
    return os.get_terminal_size().columns
