"""Images as files and in the terminal: PNG, grids, strips of steps, GIF. Knows no network.

Images are float32 (C, H, W) in [-1, 1] where nothing else is said.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor
from torch.nn import functional as F

from ostinato.arguments import reason
from ostinato.errors import InputError

SHOWN = 112  # an image is enlarged to about this many pixels a side, by whole factors
HOLD = 12  # frames that a GIF shows its last image for
IMAGE_SUFFIXES = frozenset(
    {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".pgm", ".ppm"}
)
UInt8Array = np.ndarray[tuple[int, ...], np.dtype[np.uint8]]


# Pixels ---------------------------------------------------------------------------------------


def to_bytes(image: Tensor) -> Tensor:
    """Return an image in [-1, 1] as uint8 of the same shape; values outside are clamped."""
    return ((image.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)


def to_gray(pixels: Tensor) -> Tensor:
    """Return the luma (…, 1, H, W) of uint8 pixels (…, C, H, W), by ITU-R BT.601 as Pillow."""
    if pixels.size(-3) == 1:
        return pixels
    weights = torch.tensor([0.299, 0.587, 0.114])[:, None, None]
    return (pixels.float() * weights).sum(-3, keepdim=True).round().to(torch.uint8)


def middle_square(pixels: Tensor) -> Tensor:
    """Return a view (…, S, S) of the middle of pixels (…, H, W), S the shorter side."""
    H, W = pixels.shape[-2:]
    side = min(H, W)
    top, left = (H - side) // 2, (W - side) // 2
    return pixels[..., top : top + side, left : left + side]


def scaled(pixels: Tensor, side: int) -> Tensor:
    """Scale uint8 squares (N, C, S, S) to another side, averaging where it is smaller."""
    if pixels.size(-1) == side:
        return pixels.contiguous()
    y = F.interpolate(pixels.float(), (side, side), mode="bilinear", antialias=True)
    return y.round().clamp(0, 255).to(torch.uint8)


# Grids ----------------------------------------------------------------------------------------


def tiled(rows: Sequence[Sequence[Tensor]]) -> Tensor:
    """Return rows of images (C, H, W) as one image; shorter rows are filled with -1."""
    if not rows or not any(rows):
        raise InputError("There must be at least one image to show, got none.")
    first = next(image for row in rows for image in row)
    blank = torch.full_like(first, -1.0)
    columns = max(len(row) for row in rows)
    filled = [[*row, *[blank] * (columns - len(row))] for row in rows]
    return torch.cat([torch.cat(row, 2) for row in filled], 1)


def in_grid(images: Sequence[Tensor], columns: int | None = None) -> list[list[Tensor]]:
    """Return images in rows of `columns`; without it, in a grid that is about square."""
    columns = columns or max(1, round(len(images) ** 0.5 + 0.3))
    return [list(images[at : at + columns]) for at in range(0, len(images), columns)]


# Writing --------------------------------------------------------------------------------------


def save(image: Tensor, path: str | Path, *, side: int) -> Path:
    """Write an image or a grid of images of `side` pixels as a PNG, enlarged to be seen."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    _enlarged(image, side).save(path)
    return path


def save_gif(
    frames: Sequence[Tensor], path: str | Path, *, side: int, seconds: float = 0.1
) -> Path:
    """Write a GIF that repeats, `seconds` a frame; the last frame is held `HOLD` times as long."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    images = [_enlarged(frame, side) for frame in frames]
    milliseconds = round(seconds * 1000)
    durations = [milliseconds] * (len(images) - 1) + [milliseconds * HOLD]
    images[0].save(path, save_all=True, append_images=images[1:], duration=durations, loop=0)
    return path


def for_terminal(image: Tensor) -> str:
    """Return an image as lines of half blocks in 24-bit color: two pixels a character."""
    colors = to_bytes(image)
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


def _enlarged(image: Tensor, side: int) -> Image.Image:
    pixels = to_bytes(image).permute(1, 2, 0).squeeze(-1).contiguous().numpy()
    shown = Image.fromarray(pixels)
    factor = max(1, SHOWN // side)
    # Nearest: a reader wants to see the pixels that were made, not smoothed ones.
    return shown.resize((shown.width * factor, shown.height * factor), Image.Resampling.NEAREST)


# Reading --------------------------------------------------------------------------------------


def read_pixels(path: Path) -> UInt8Array:
    """Return the pixels (H, W) of a gray image file, (H, W, 3) of any other.

    Transparent parts are white. Raises `InputError` for a file that is no image.
    """
    try:
        with Image.open(path) as opened:
            image: Image.Image = opened
            if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
                image = image.convert("RGBA")
                image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
                image = image.convert("RGB")
            gray = image.mode in ("1", "L", "I", "F") or image.mode.startswith("I;16")
            return np.array(_eight_bit(image).convert("L" if gray else "RGB"), dtype=np.uint8)
    except (OSError, UnidentifiedImageError, ValueError, SyntaxError) as error:
        raise InputError(
            f"{path} must be an image, got: {reason(error)}. Fix the file, or move it elsewhere."
        ) from None


def read(path: str | Path, *, channels: int, size: int) -> Tensor:
    """Return an image file as (channels, size, size) in [-1, 1]: its middle square, scaled.

    Transparency is ignored. Raises `InputError` for a file that is no image.
    """
    try:
        with Image.open(path) as opened:
            image = _eight_bit(opened).convert("L" if channels == 1 else "RGB")
    except (OSError, UnidentifiedImageError) as error:
        raise InputError(
            f"{path} must be an image, got: {reason(error)}. Check the path."
        ) from None
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    image = image.crop((left, top, left + side, top + side))
    if side != size:
        image = image.resize((size, size), Image.Resampling.LANCZOS)
    values = torch.from_numpy(np.array(image)).float() / 127.5 - 1
    return values[None] if channels == 1 else values.permute(2, 0, 1).contiguous()


def _eight_bit(image: Image.Image) -> Image.Image:
    """Scale a gray image of 16 bits to 8: Pillow's own `convert` clips all above 255 to white."""
    if not image.mode.startswith("I"):
        return image
    values = np.asarray(image)
    deep = image.mode != "I" or (bool(values.size) and int(values.max()) > 255)
    return Image.fromarray((values // 256 if deep else values).clip(0, 255).astype(np.uint8))
