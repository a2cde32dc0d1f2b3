"""Images as files and in the terminal: PNG, grids, strips of steps, GIF. Knows no network.

Images are float32 (C, H, W) in [-1, 1] where nothing else is said.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from PIL import ExifTags, Image, UnidentifiedImageError
from torch import Tensor
from torch.nn import functional as F

from ostinato.arguments import reason
from ostinato.errors import InputError

SHOWN = 112  # an image is enlarged to about this many pixels a side, by whole factors
MOVING = 336  # the same of an image in a GIF that shows one
WIDEST = 840  # pixels of a GIF: with more images in it, each is smaller
FILM = 300  # pixels of the width of a film of a game
FRAME, LAST = 0.3, 3.0  # seconds that a GIF shows a step for, and its last one
IMAGE_SUFFIXES = frozenset(
    {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".pgm", ".ppm"}
    | {".pbm", ".pnm", ".jfif", ".tga", ".jp2"}
)
WHITE = 255
TIFF_BITS, TIFF_PHOTOMETRIC, TIFF_FORMAT = 258, 262, 339  # tags: bits, where white is, signedness
T = TypeVar("T")
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


def tiled(rows: Sequence[Sequence[Tensor]], *, gutter: int = 0) -> Tensor:
    """Return rows of images (C, H, W) as one image, with white gutters of so many pixels.

    Shorter rows are filled: with white where there are gutters, else with black.
    """
    if not rows or not any(rows):
        raise InputError("There must be at least one image to show, got none.")
    first = next(image for row in rows for image in row)
    blank = torch.full_like(first, 1.0 if gutter else -1.0)
    columns = max(len(row) for row in rows)
    filled = [[*row, *[blank] * (columns - len(row))] for row in rows]
    # Around each image, then cut at two sides: gutters are between images only.
    pad = (0, gutter, 0, gutter)
    cells = [torch.cat([F.pad(image, pad, value=1.0) for image in row], 2) for row in filled]
    grid = torch.cat(cells, 1)
    return grid[:, : grid.size(1) - gutter, : grid.size(2) - gutter]


def gutter_of(side: int) -> int:
    """Return the gutter, in pixels before they are enlarged, between images of so many pixels."""
    return max(1, side // 28)


def in_grid(images: Sequence[T], columns: int | None = None) -> list[list[T]]:
    """Return images in rows of `columns`; without it, in a grid that is about square."""
    columns = columns or max(1, round(len(images) ** 0.5 + 0.3))
    return [list(images[at : at + columns]) for at in range(0, len(images), columns)]


# Writing --------------------------------------------------------------------------------------


def save(image: Tensor, path: str | Path, *, side: int, scale: int | None = None) -> Path:
    """Write an image or a grid of images of `side` pixels as a PNG, enlarged to be seen."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    enlarged(image, scale or enlargement(side)).save(path)
    return path


def enlargement(side: int) -> int:
    """Return the whole factor by which images of so many pixels are enlarged to be seen."""
    return max(1, SHOWN // side)


def save_gif(
    frames: Sequence[Tensor],
    path: str | Path,
    *,
    side: int,
    scale: int | None = None,
    seconds: float = FRAME,
) -> Path:
    """Write a GIF that repeats: so many seconds a step, its last step `LAST` seconds.

    `side` is that of one image of the grid, in pixels before they are enlarged.
    """
    factor = scale or moving_scale(side, frames[0].size(2))
    return write_gif([enlarged(frame, factor) for frame in frames], path, seconds)


def moving_scale(side: int, width: int) -> int:
    """Return by what a GIF is enlarged: large where there is one image, no wider than a page."""
    return max(1, min(MOVING // side, WIDEST // width))


def smaller(pixels: Tensor) -> Tensor:
    """Return uint8 pixels (C, H, W), averaged to be at most `FILM` wide by a whole factor."""
    factor = -(-pixels.size(2) // FILM)
    if factor == 1:
        return pixels
    return F.avg_pool2d(pixels.float(), factor).round().to(torch.uint8)


def save_film(frames: Sequence[Tensor], path: str | Path, *, fps: float) -> Path:
    """Write uint8 frames (C, H, W) as a GIF that repeats; its last one stays for `LAST` seconds."""
    images = [Image.fromarray(frame.permute(1, 2, 0).contiguous().numpy()) for frame in frames]
    return write_gif(images, path, 1 / fps)


def write_gif(images: Sequence[Image.Image], path: str | Path, seconds: float) -> Path:
    """Write images as a GIF that repeats; the last one stays for `LAST` seconds, or longer."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    durations = [round(seconds * 1000)] * (len(images) - 1) + [round(max(LAST, seconds) * 1000)]
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


def enlarged(image: Tensor, factor: int) -> Image.Image:
    """Return an image with so many pixels a side for each of its own."""
    pixels = to_bytes(image).permute(1, 2, 0).squeeze(-1).contiguous().numpy()
    shown = Image.fromarray(pixels)
    # Nearest: a reader wants to see the pixels that were made, not smoothed ones.
    return shown.resize((shown.width * factor, shown.height * factor), Image.Resampling.NEAREST)


# Reading --------------------------------------------------------------------------------------


def read_pixels(path: Path, *, background: int = WHITE) -> UInt8Array:
    """Return the pixels (H, W) of a gray image file, (H, W, 3) of any other, upright.

    16 bits a channel are scaled to 8, transparent parts lie on `background`, and an animation is
    its first frame. Raises `InputError` for a file that is no image, damaged or too large.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's, of large and of slightly damaged files
            with Image.open(path) as opened:
                opened.load()
                return _pixels(opened, background)
    except Image.DecompressionBombError:
        most = 2 * (Image.MAX_IMAGE_PIXELS or 0)  # where Pillow refuses; it warns of half of it
        raise InputError(
            f"{path} must have at most {most:,} pixels, got more. Scale it down."
        ) from None
    except Exception as error:  # whatever Pillow stumbles over in a damaged file
        unknown = isinstance(error, UnidentifiedImageError)
        got = "another kind of file" if unknown else " ".join(reason(error).split())
        raise InputError(
            f"{path} must be an image, got: {got}. Fix the file, or move it elsewhere."
        ) from None


def read(path: str | Path, *, channels: int, size: int, background: int = WHITE) -> Tensor:
    """Return an image file as (channels, size, size) in [-1, 1]: its middle square, scaled.

    The pixels are those that a training reads. Raises `InputError` as `read_pixels` does.
    """
    pixels = torch.from_numpy(read_pixels(Path(path), background=background))
    return square(pixels, size, gray=channels == 1).float() / 127.5 - 1


def square(pixels: Tensor, side: int, *, gray: bool | None = None) -> Tensor:
    """Return the middle square (C, side, side) of uint8 pixels (H, W) or (H, W, 3), scaled.

    C is 1 for `gray`, 3 for not, and by default as the pixels are.
    """
    x = pixels[None] if pixels.dim() == 2 else pixels.permute(2, 0, 1)  # (C, H, W)
    if gray is not None:
        x = to_gray(x) if gray else x.expand(3, -1, -1)
    return scaled(middle_square(x)[None], side)[0]


def _pixels(image: Image.Image, background: int) -> UInt8Array:
    if image.mode.startswith(("I", "F")):
        return _upright(_deep_gray(image, background), image)
    gray = image.mode in ("1", "L", "LA", "La")
    shown = image
    if image.has_transparency_data:
        shown = image.convert("LA" if gray else "RGBA")
        opaque = (background,) * (len(shown.getbands()) - 1) + (255,)
        shown = Image.alpha_composite(Image.new(shown.mode, shown.size, opaque), shown)
    pixels: UInt8Array = np.array(shown.convert("L" if gray else "RGB"), dtype=np.uint8)
    # Pillow has no gray with alpha of 16 bits, and programs that shrink files write gray palettes.
    if not gray and image.mode != "RGB" and (pixels == pixels[..., :1]).all():
        pixels = pixels[..., 0]
    return _upright(pixels, image)


def _deep_gray(image: Image.Image, background: int) -> UInt8Array:
    """Scale a gray image of up to 16 bits to 8: Pillow's `convert` clips all above 255 to white."""
    tags: Mapping[int, Any] = getattr(image, "tag_v2", {})  # of a TIFF
    bits = tags.get(TIFF_BITS, (16,))[0]
    if image.mode == "F" or bits > 16 or tags.get(TIFF_FORMAT, (1,))[0] != 1:
        raise ValueError("values that are no whole numbers of 8 or 16 bits, so white is not known")
    values = np.array(image, dtype=np.int64)
    if tags.get(TIFF_PHOTOMETRIC) == 0:  # white is 0
        values = (1 << bits) - 1 - values
    gray: UInt8Array = (values >> (bits - 8)).clip(0, 255).astype(np.uint8)
    if "transparency" in image.info:
        gray[values == image.info["transparency"]] = background
    return gray


def _upright(pixels: UInt8Array, image: Image.Image) -> UInt8Array:
    """Turn pixels (H, W, ...) as the EXIF orientation of a loaded image says."""
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # a damaged note beside pixels that are whole
        return pixels
    if orientation in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    rows = slice(None, None, -1 if orientation in (3, 4, 7, 8) else 1)
    columns = slice(None, None, -1 if orientation in (2, 3, 6, 7) else 1)
    return np.ascontiguousarray(pixels[rows, columns])
