"""Rows of images as one picture, with lines of text under each. Knows no network.

Images are float32 (C, H, W) in [-1, 1], C 1 or 3, all of one shape.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from ostinato.media.image_io import enlargement, to_bytes

GAP, TEXT, FONT = 4, 12, 10  # pixels: between images, of a line, of its letters
CAPTION = 76  # pixels of a line of 14 letters
WHITE = "white"

Cell = tuple[Tensor | None, Sequence[str]]
"""An image, or none, and the lines below it."""


def sheet(rows: Sequence[Sequence[Cell]], *, scale: int) -> Image.Image:
    """Return rows of images, enlarged by a whole factor, with lines of text below each."""
    first = next(image for row in rows for image, _ in row if image is not None)
    C, H, W = first.shape
    wide = W * scale + GAP
    heights = [H * scale + GAP + TEXT * max(len(lines) for _, lines in row) for row in rows]
    columns = max(len(row) for row in rows)
    size = columns * wide + GAP, sum(heights) + GAP
    page = Image.new("L" if C == 1 else "RGB", size, WHITE)
    pen, font = ImageDraw.Draw(page), ImageFont.load_default(size=FONT)
    top = GAP
    for row, height in zip(rows, heights, strict=True):
        for column, (image, lines) in enumerate(row):
            left = GAP + column * wide
            if image is not None:
                pixels = Image.fromarray(to_bytes(image).permute(1, 2, 0).squeeze(-1).numpy())
                # Nearest: a reader wants to see the pixels that were made, not smoothed ones.
                enlarged = pixels.resize((W * scale, H * scale), Image.Resampling.NEAREST)
                page.paste(enlarged, (left, top))
            for number, line in enumerate(lines):
                at = (left + W * scale / 2, top + H * scale + 1 + TEXT * number)
                pen.text(at, line, fill="black", font=font, anchor="ma")
        top += height
    return page


def save_sheet(rows: Sequence[Sequence[Cell]], path: str | Path, *, side: int) -> Path:
    """Write a `sheet` of images of `side` pixels as a PNG, enlarged to be seen and captioned."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    scale = max(enlargement(side), -(-CAPTION // side))  # rounded up
    sheet(rows, scale=scale).save(path)
    return path
