"""A run of images that is ready to be driven, and the files that it writes. Knows no network."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ostinato.errors import RunError
from ostinato.image.step_images import ShownStep, Trace, add_step, frames, spread, strips, trace_of
from ostinato.journal import StopKind, tensor_of
from ostinato.loop import ItemsWork, LaneResult, Step
from ostinato.media import image_io, save_sheet


@dataclass(kw_only=True)
class ImageWork(ItemsWork):
    """The loop over `count` images, which `finish` writes to `out`: a .png, a .gif or a folder.

    `show_steps` writes the steps of each image. `decode` makes images of a pipeline's latents.
    `notes` are sentences that a user should read.
    """

    out: Path
    count: int
    show_steps: bool = False
    decode: Callable[[Tensor], Tensor] | None = None
    notes: tuple[str, ...] = ()
    _trace: Trace = field(default_factory=dict, init=False, repr=False)
    _is_whole: bool = field(default=False, init=False, repr=False)  # whether `_trace` is

    @property
    def _needs_steps(self) -> bool:
        return self.show_steps or self._is_gif

    @property
    def _is_gif(self) -> bool:
        return self.out.suffix.lower() == ".gif"

    def watch(self, step: Step) -> None:
        """Take the finished images, and their steps where they are to be written."""
        super().watch(step)
        self._is_whole = self._is_whole or step.tick == 1
        for key, lane in step.lanes.items() if self._needs_steps and self._is_whole else ():
            add_step(self._trace, key, lane.position, lane.report)

    def write(self) -> None:
        """Write the images that are done, or their steps.

        Raises `RunError` where there is none, or where the journal does not hold the steps.
        """
        results = self._drawn()
        if not results:
            raise RunError(
                "There must be a finished image to write, got none. Run the loop first: "
                "work.loop.run(work.watch)."
            )
        steps = self._steps(results)
        side = _image(results[0]).size(-1)
        sheets = [strips([each]) for each in steps] if self.show_steps and not self._is_gif else []
        if self._is_gif:
            image_io.save_gif(frames(steps), self.out, side=side)
        elif self.out.suffix:
            if sheets:
                save_sheet([row for sheet in sheets for row in sheet], self.out, side=side)
            else:
                image_io.save(_grid(results), self.out, side=side)
        else:
            self._write_folder(results, sheets, side)

    def grid(self) -> Tensor:
        """Return what a terminal shows: the images (C, H, W) in one, or their steps."""
        results = self._drawn()
        if not self.show_steps:
            return _grid(results)
        chosen = strips([spread(each) for each in self._steps(results)])
        tiles = [[image for image, _ in row if image is not None] for row in chosen]
        return image_io.tiled(tiles, gutter=image_io.gutter_of(tiles[0][0].size(-1)))

    def _drawn(self) -> list[LaneResult]:
        return [result for result in self.results if result.stopped.kind is not StopKind.ERROR]

    def _steps(self, results: Sequence[LaneResult]) -> list[list[ShownStep]]:
        """Return the steps to show of every image: all for a GIF, some for a sheet."""
        if not self._needs_steps:
            return []
        run = self.loop.recorded_as
        # The history also holds the steps of earlier sessions, and of a branch's parents.
        trace = self._trace if self._is_whole or run is None else trace_of(run.history())
        every = [trace[result.key] for result in results]
        every = every if self._is_gif else [spread(steps) for steps in every]
        if self.decode is None:
            return every
        with torch.no_grad():
            return [[step.decoded(self.decode) for step in steps] for steps in every]

    def _write_folder(
        self, results: Sequence[LaneResult], sheets: Sequence[Any], side: int
    ) -> None:
        for result in results:
            image_io.save(_image(result), self.out / f"{result.index:04}.png", side=side)
        for result, sheet in zip(results, sheets, strict=False):
            save_sheet(sheet, self.out / f"{result.index:04}-steps.png", side=side)


def _image(result: LaneResult) -> Tensor:
    image: Tensor = tensor_of(result.output).float()  # (C, H, W)
    return image


def _grid(results: Sequence[LaneResult]) -> Tensor:
    images = [_image(result) for result in results]
    gutter = image_io.gutter_of(images[0].size(-1))
    return image_io.tiled(image_io.in_grid(images), gutter=gutter)
