"""Rows of images as one picture, with lines of text under each. Knows no network.

Images are float32 (C, H, W) in [-1, 1], C 1 or 3, all of one shape.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from ostinato.media.image_io import enlarged, enlargement, to_bytes

GAP, FONT = 4, 10  # pixels: between images, of letters
LEADING = 2  # pixels of a line beside its letters
CAPTION = 76  # pixels of a line of 14 letters
LETTERS = 20  # pixels of the letters below a grid
WHITE = "white"
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

Cell = tuple[Tensor | None, Sequence[str]]
"""An image, or none, and the lines below it."""


def sheet(rows: Sequence[Sequence[Cell]], *, scale: int, letters: int = FONT) -> Image.Image:
    """Return rows of images, enlarged by a whole factor, with lines of text below each.

    `letters` is the size of the text, in pixels; a line that is wider than its image is cut.
    """
    first = next(image for row in rows for image, _ in row if image is not None)
    C, H, W = first.shape
    wide = W * scale + GAP
    line_height = letters + LEADING
    heights = [H * scale + GAP + line_height * max(len(lines) for _, lines in row) for row in rows]
    columns = max(len(row) for row in rows)
    size = columns * wide + GAP, sum(heights) + GAP
    page = Image.new("L" if C == 1 else "RGB", size, WHITE)
    pen, font = ImageDraw.Draw(page), ImageFont.load_default(size=letters)
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
                at = (left + W * scale / 2, top + H * scale + 1 + line_height * number)
                text = fitting(line, wide, font)
                pen.text(at, text, fill="black", font=font, anchor="ma")
        top += height
    return page


def fitting(line: str, width: int, font: Font) -> str:
    """Return a line, cut with an ellipsis where it is wider than so many pixels."""
    if font.getlength(line) <= width:
        return line
    kept = line
    while kept and font.getlength(f"{kept}…") > width:
        kept = kept[:-1]
    return f"{kept}…"


def save_sheet(
    rows: Sequence[Sequence[Cell]],
    path: str | Path,
    *,
    side: int,
    scale: int | None = None,
    letters: int = FONT,
) -> Path:
    """Write a `sheet` of images of `side` pixels as a PNG, enlarged to be seen and captioned."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    scale = scale or max(enlargement(side), -(-CAPTION // side))  # rounded up
    sheet(rows, scale=scale, letters=letters).save(path)
    return path


def save_captioned(image: Tensor, words: Sequence[str], path: str | Path, *, side: int) -> Path:
    """Write a grid of images of `side` pixels as a PNG, with words in lines below it."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    grid = enlarged(image, enlargement(side))
    font = ImageFont.load_default(size=LETTERS)
    lines = _in_lines(words, grid.width - 2 * GAP, font)
    height = LETTERS + 2 * LEADING
    page = Image.new(grid.mode, (grid.width, grid.height + GAP + height * len(lines)), WHITE)
    page.paste(grid)
    pen = ImageDraw.Draw(page)
    for number, line in enumerate(lines):
        pen.text((GAP, grid.height + GAP + height * number), line, fill="black", font=font)
    page.save(path)
    return path


def _in_lines(words: Sequence[str], width: int, font: Font) -> list[str]:
    """Return words in lines of at most `width` pixels; a word alone may be cut."""
    lines: list[str] = []
    for word in words:
        longer = f"{lines[-1]}   {word}" if lines else word
        if lines and font.getlength(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(fitting(word, width, font))
    return lines
