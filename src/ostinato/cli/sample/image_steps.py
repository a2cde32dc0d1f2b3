"""The steps of images: collected while they are sampled or read from a run, then written.

Knows no model and no option of the command.
"""

from __future__ import annotations

import os
import sys
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from ostinato.cli.run_loop import rows_of

if TYPE_CHECKING:
    from torch import Tensor

    from ostinato.journal import Run
    from ostinato.loop import Loop, Step
    from ostinato.media import Cell

COLUMNS = 10
"""Steps that a sheet shows of an image: the first, the last and some between."""


class ShownStep(NamedTuple):
    """A step: its images (C, H, W), each with the lines to write under it.

    `noisy` is None for a pipeline, whose latents are no images.
    """

    noisy: Tensor | None
    noisy_lines: tuple[str, ...]
    clean: Tensor
    clean_lines: tuple[str, ...]

    @property
    def moving(self) -> Tensor:
        """The image that a GIF shows: the noisy one where there is one."""
        return self.clean if self.noisy is None else self.noisy


Trace = dict[str, list[ShownStep]]
"""By item: every step of its image."""


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
        return rows_of(loop), trace
    return rows_of(loop, watch=watch, read=read), trace


def _add(steps: list[ShownStep], position: int, report: Any) -> None:
    """Add the two images of a step; drop the steps that the image was taken back behind."""
    from ostinato.journal import tensor_of

    del steps[position - 1 :]
    step = f"step {report['step']}"
    if "sigma_next" not in report:  # a pipeline: it reports latents, and an image if decoded
        if "image" in report:
            decoded = tensor_of(report["image"]) / 127.5 - 1
            lines = (step, f"sigma {_short(report['sigma'])}")
            steps.append(ShownStep(None, (), decoded, lines))
        return
    noisy, clean = (tensor_of(report[name]).float() for name in ("noisy", "clean"))
    # Scaled to variance 1, as a variance-preserving process shows it: noise of sigma 80 would
    # otherwise leave no image to see.
    noisy = noisy / (1 + report["sigma_next"] ** 2) ** 0.5
    above = (step, f"sigma {_short(report['sigma_next'])}")
    below = (f"at sigma {_short(report['sigma'])}", f"change {report['change']:.2f}")
    steps.append(ShownStep(noisy, above, clean, below))


def _short(sigma: float) -> str:
    return f"{sigma:.0f}" if sigma >= 100 else f"{sigma:.2g}"


# Output -----------------------------------------------------------------------------------------


def write_images(
    rows: list[dict[str, Any]], trace: Trace, target: Path, *, show_steps: bool
) -> None:
    """Write the images, or their steps, and print them where the terminal shows colors."""
    import torch

    from ostinato.media import image_io, save_sheet

    images = [torch.as_tensor(row["output"], dtype=torch.float32) for row in rows]  # (C, H, W)
    steps = [trace[row["key"]] for row in rows]
    side = images[0].size(-1)
    gutter = image_io.gutter_of(side)
    strips = _strips(steps) if show_steps else []
    if strips:
        tiles = [[image for image, _ in strip if image is not None] for strip in strips]
    else:
        tiles = image_io.in_grid(images)
    grid = image_io.tiled(tiles, gutter=gutter)
    if target.suffix.lower() == ".gif":
        image_io.save_gif(_frames(steps), target, side=side)
    elif strips and target.suffix:
        save_sheet(strips, target, side=side)
    elif target.suffix:
        image_io.save(grid, target, side=side)
    else:
        for row, each, its_steps in zip(rows, images, steps, strict=True):
            image_io.save(each, target / f"{row['index']:04}.png", side=side)
            if strips:
                path = target / f"{row['index']:04}-steps.png"
                save_sheet(_strips([its_steps]), path, side=side)
    if _shows_color() and grid.size(2) <= os.get_terminal_size().columns:
        click.echo(image_io.for_terminal(grid))


def _strips(steps: list[list[ShownStep]]) -> list[list[Cell]]:
    """Return the rows of a sheet: for each image its noisy states, where it has some, and below
    them the clean predictions, at most `COLUMNS` of each."""
    rows: list[list[Cell]] = []
    for every in steps:
        chosen = _spread(every)
        if all(step.noisy is not None for step in chosen):
            rows.append([(step.noisy, step.noisy_lines) for step in chosen])
        rows.append([(step.clean, step.clean_lines) for step in chosen])
    return rows


def _spread(steps: list[ShownStep]) -> list[ShownStep]:
    """Return at most `COLUMNS` of the steps, evenly spread from the first to the last."""
    last = len(steps) - 1
    if last < COLUMNS:
        return steps
    return [steps[round(n * last / (COLUMNS - 1))] for n in range(COLUMNS)]


def _frames(steps: list[list[ShownStep]]) -> list[Tensor]:
    """Return a grid of the images for every step; images that ended early stay."""
    from ostinato.media import image_io

    last = max(len(every) for every in steps)
    gutter = image_io.gutter_of(steps[0][0].clean.size(-1))
    frames = []
    for n in range(last):
        # The last frame, which is held, shows the results.
        at = [
            every[-1].clean if n == last - 1 else every[min(n, len(every) - 1)].moving
            for every in steps
        ]
        frames.append(image_io.tiled(image_io.in_grid(at), gutter=gutter))
    return frames


def _shows_color() -> bool:
    """Return whether the output is a terminal of 24-bit color (COLORTERM, no-color.org)."""
    colors = os.environ.get("COLORTERM", "") in ("truecolor", "24bit")
    return sys.stdout.isatty() and colors and not os.environ.get("NO_COLOR")
