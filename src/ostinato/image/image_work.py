"""A run of images that is ready to be driven, and the files that it writes. Knows no network."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from ostinato.arguments import counted, require
from ostinato.errors import RunError
from ostinato.image.step_images import ShownStep, Trace, add_step, frames, spread, strips, trace_of
from ostinato.journal import StopKind, tensor_of
from ostinato.loop import ItemsWork, LaneResult, Step
from ostinato.media import FONT, Cell, image_io, save_sheet, sheet

LETTERS = 14
"""A caption's letters are this part of an image's side."""
WIDEST = 8192
"""Pixels of the largest picture."""


@dataclass(kw_only=True)
class ImageWork(ItemsWork):
    """The loop over `count` images, which `finish` writes to `out`: a .png, a .gif or a folder.

    `show_steps` writes the steps of each image. `captions` are written below the images, by their
    number; none: no words. An image is enlarged by `scale`, None: so that it can be seen. A GIF
    shows a step for `pace` seconds. `decode` makes images of a pipeline's latents. `notes` are
    sentences that a user should read.
    """

    out: Path
    count: int
    show_steps: bool = False
    captions: Sequence[str] = ()
    scale: int | None = None
    pace: float = image_io.FRAME
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
        if self.scale is not None:
            require_scale(self.scale, side, len(results))
        if self._is_gif:
            self._write_gif(results, steps, side)
        elif not self.out.suffix:
            self._write_folder(results, steps, side)
        elif self.show_steps:
            self._write_sheet(self._strips(results, steps), self.out, side)
        elif self.captions:
            cells = [(_image(result), self._name(result)) for result in results]
            self._write_sheet(image_io.in_grid(cells), self.out, side)
        else:
            image_io.save(_grid(results), self.out, side=side, scale=self.scale)

    def grid(self) -> Tensor:
        """Return what a terminal shows: the images (C, H, W) in one, or their steps."""
        results = self._drawn()
        if not self.show_steps:
            return _grid(results)
        chosen = [row for each in self._steps(results) for row in strips(spread(each))]
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

    def _name(self, result: LaneResult) -> tuple[str, ...]:
        """Return the line below an image; none without captions."""
        return (self.captions[result.index],) if self.captions else ()

    def _strips(
        self, results: Sequence[LaneResult], steps: Sequence[Sequence[ShownStep]]
    ) -> list[list[Cell]]:
        pairs = zip(results, steps, strict=True)
        return [row for result, each in pairs for row in strips(each, self._name(result))]

    def _letters(self, scale: int | None, side: int) -> int:
        """Return the size of captions: large where images are large, for those far away."""
        if not self.captions:
            return FONT
        return max(FONT, side * (scale or image_io.enlargement(side)) // LETTERS)

    def _write_sheet(self, rows: Sequence[Sequence[Cell]], path: Path, side: int) -> None:
        letters = self._letters(self.scale, side)
        save_sheet(rows, path, side=side, scale=self.scale, letters=letters)

    def _write_gif(
        self, results: Sequence[LaneResult], steps: Sequence[Sequence[ShownStep]], side: int
    ) -> None:
        shown = frames(steps)
        if not self.captions:
            gutter = image_io.gutter_of(side)
            rows = [image_io.in_grid([image for image, _ in at]) for at in shown]
            grids = [image_io.tiled(each, gutter=gutter) for each in rows]
            image_io.save_gif(grids, self.out, side=side, scale=self.scale, seconds=self.pace)
            return
        columns = len(image_io.in_grid(shown[0])[0])
        scale = self.scale or image_io.moving_scale(side, columns * side)
        names = [self._name(result) for result in results]
        pages = []
        for at in shown:
            cells = [(image, (*name, line)) for name, (image, line) in zip(names, at, strict=True)]
            letters = self._letters(scale, side)
            pages.append(sheet(image_io.in_grid(cells), scale=scale, letters=letters))
        image_io.write_gif(pages, self.out, self.pace)

    def _write_folder(
        self, results: Sequence[LaneResult], steps: Sequence[Sequence[ShownStep]], side: int
    ) -> None:
        for result in results:
            path, image = self.out / f"{result.index:04}.png", _image(result)
            if self.captions:
                self._write_sheet([[(image, self._name(result))]], path, side)
            else:
                image_io.save(image, path, side=side, scale=self.scale)
        for result, each in zip(results, steps, strict=False):
            path = self.out / f"{result.index:04}-steps.png"
            self._write_sheet(self._strips([result], [each]), path, side)


def require_scale(scale: int, side: int, count: int) -> None:
    """Raise `InputError` for a scale by which so many images of `side` pixels are too large."""
    columns = len(image_io.in_grid(range(count))[0])
    most = max(1, WIDEST // (side * columns))
    expected = f"at most {most} for {counted(count, 'images')} of {side} pixels a side"
    require(scale <= most, "scale", expected, scale, "Lower it, or make fewer images.")


def _image(result: LaneResult) -> Tensor:
    image: Tensor = tensor_of(result.output).float()  # (C, H, W)
    return image


def _grid(results: Sequence[LaneResult]) -> Tensor:
    images = [_image(result) for result in results]
    gutter = image_io.gutter_of(images[0].size(-1))
    return image_io.tiled(image_io.in_grid(images), gutter=gutter)
