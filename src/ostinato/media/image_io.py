"""Images as files and in the terminal: PNG, grids, strips of steps, GIF. Knows no network."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from ostinato.errors import InputError

SHOWN = 112  # an image is enlarged to about so many pixels a side, by whole factors
HOLD = 12  # how many frames long a GIF shows its last one


def to_bytes(image: Tensor) -> Tensor:
    """Return an image (C, H, W) in [-1, 1] as uint8 (C, H, W); what is outside is cut."""
    return ((image.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)


def tiled(rows: Sequence[Sequence[Tensor]]) -> Tensor:
    """Return rows of images (C, H, W) as one image; rows that are shorter are filled with -1."""
    if not rows or not any(rows):
        raise InputError("There must be at least one image to show, got none.")
    first = next(image for row in rows for image in row)
    blank = torch.full_like(first, -1.0)
    columns = max(len(row) for row in rows)
    filled = [[*row, *[blank] * (columns - len(row))] for row in rows]
    return torch.cat([torch.cat(list(row), 2) for row in filled], 1)


def in_grid(images: Sequence[Tensor], columns: int | None = None) -> list[list[Tensor]]:
    """Return images in rows of `columns`; without it in a grid that is about square."""
    columns = columns or max(1, round(len(images) ** 0.5 + 0.3))
    return [list(images[at : at + columns]) for at in range(0, len(images), columns)]


def save(picture: Tensor, path: str | Path, *, side: int) -> Path:
    """Write a picture (C, H, W) of images of `side` pixels as a PNG, enlarged to be seen."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    _enlarged(picture, side).save(path)
    return path


def save_gif(
    frames: Sequence[Tensor], path: str | Path, *, side: int, seconds: float = 0.1
) -> Path:
    """Write pictures (C, H, W) one after the other as a GIF that repeats; the last one stays."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    images = [_enlarged(frame, side) for frame in frames]
    times = [round(seconds * 1000)] * (len(images) - 1) + [round(seconds * 1000) * HOLD]
    images[0].save(path, save_all=True, append_images=images[1:], duration=times, loop=0)
    return path


def read(path: str | Path, *, channels: int, size: int) -> Tensor:
    """Return an image file as (channels, size, size) in [-1, 1]: its middle square, scaled.

    Raises `InputError` where there is none.
    """
    try:
        with Image.open(path) as opened:
            image = opened.convert("L" if channels == 1 else "RGB")
    except (OSError, UnidentifiedImageError) as error:
        raise InputError(f"{path} must be an image, got: {error}. Check the path.") from None
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    image = image.crop((left, top, left + side, top + side))
    if side != size:
        image = image.resize((size, size), Image.Resampling.LANCZOS)
    values = torch.from_numpy(np.array(image)).float() / 127.5 - 1
    return values[None] if channels == 1 else values.permute(2, 0, 1).contiguous()


def for_terminal(picture: Tensor) -> str:
    """Return a picture (C, H, W) as lines of half blocks in color, two pixels a character."""
    colors = to_bytes(picture)
    if colors.size(0) == 1:
        colors = colors.expand(3, -1, -1)
    if colors.size(1) % 2:
        colors = torch.cat((colors, torch.zeros_like(colors[:, :1])), 1)
    upper, lower = colors[:, ::2].permute(1, 2, 0), colors[:, 1::2].permute(1, 2, 0)
    lines = []
    for above, below in zip(upper.tolist(), lower.tolist(), strict=True):
        cells = [
            f"\x1b[38;2;{a[0]};{a[1]};{a[2]};48;2;{b[0]};{b[1]};{b[2]}m▀"
            for a, b in zip(above, below, strict=True)
        ]
        lines.append("".join(cells) + "\x1b[0m")
    return "\n".join(lines)


def _enlarged(picture: Tensor, side: int) -> Image.Image:
    values = to_bytes(picture).permute(1, 2, 0).squeeze(-1).contiguous().numpy()
    image = Image.fromarray(values)
    factor = max(1, SHOWN // side)
    return image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)
