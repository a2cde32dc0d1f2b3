"""Images out of folders, IDX files or scikit-learn's digits. Bad input is told by file and mend."""

from __future__ import annotations

import gzip
import hashlib
import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ostinato.errors import InputError, MissingExtra

ENDINGS = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".pgm", ".ppm"}
SMALLEST, LARGEST = 8, 64
Bytes = np.ndarray[tuple[int, ...], np.dtype[np.uint8]]


@dataclass(frozen=True)
class Images:
    """Square images, uint8 (N, C, S, S) with C 1 or 3, and their classes (N,) where they have any.

    `names` are the classes' names by index; empty: no classes.
    """

    pixels: Tensor
    labels: Tensor | None = None
    names: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.pixels)

    @property
    def channels(self) -> int:
        """1 for gray, 3 for color."""
        return int(self.pixels.size(1))

    @property
    def size(self) -> int:
        """The side in pixels."""
        return int(self.pixels.size(2))

    def at(self, chosen: Sequence[int] | Tensor) -> Images:
        """Return some of the images."""
        index = torch.as_tensor(chosen, dtype=torch.long)
        labels = None if self.labels is None else self.labels[index]
        return replace(self, pixels=self.pixels[index], labels=labels)

    def without_classes(self) -> Images:
        """Return the images alone."""
        return Images(self.pixels)

    def clean(self) -> Tensor:
        """Return float32 pixels (N, C, S, S) in [-1, 1]."""
        return self.pixels.float() / 127.5 - 1

    def fingerprint(self) -> str:
        """Return a hash of the pixels, classes and names."""
        digest = hashlib.blake2b(digest_size=16)
        digest.update(repr((tuple(self.pixels.shape), self.names)).encode())
        digest.update(self.pixels.contiguous().numpy().tobytes())
        if self.labels is not None:
            digest.update(self.labels.numpy().tobytes())
        return digest.hexdigest()


def read_images(
    sources: Sequence[str | Path], *, size: int | None = None, gray: bool | None = None
) -> Images:
    """Read `digits`, a folder (its sub-folders are classes), or IDX files of images and labels.

    `size` in pixels, 8 to 64 (None: as they are, where all are alike); other images are cut to
    their middle square and scaled. `gray` None: gray where all images are. Raises `InputError`.
    """
    if size is not None and not SMALLEST <= size <= LARGEST:
        raise InputError(f"size must be {SMALLEST} to {LARGEST} pixels, got {size}.")
    if not sources:
        raise InputError("Images must come from a folder, IDX files or 'digits', got nothing.")
    first = Path(sources[0])
    if str(sources[0]) == "digits" and not first.exists():
        images = _digits()
    elif first.is_dir():
        _alone(sources, "A folder")
        images = _folder(first, size, gray)
    else:
        images = _idx([Path(source) for source in sources])
    return _fitted(_colored(images, gray), size)


def hold_out(images: Images, share: float = 0.1, *, seed: int = 0) -> tuple[Images, Images]:
    """Return those to train on and, as drawn from `seed`, the `share` to validate with."""
    if not 0 <= share < 1:
        raise InputError(f"The share held out must be in [0, 1), got {share}.")
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))
    count = int(len(images) * share)
    return images.at(order[count:].sort().values), images.at(order[:count].sort().values)


def _alone(sources: Sequence[str | Path], what: str) -> None:
    if len(sources) > 1:
        raise InputError(
            f"{what} of images must be given alone, got also {sources[1]}. "
            "Put all images under one folder."
        )


# scikit-learn's digits ------------------------------------------------------------------------


def _digits() -> Images:
    """Return the 1,797 scans of 8 x 8 pixels (Alpaydin and Kaynak 1998) that come with sklearn."""
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise MissingExtra("The data set 'digits'", "image") from None
    loaded = load_digits()
    pixels = torch.from_numpy(loaded.images).float() * (255 / 16)
    labels = torch.from_numpy(loaded.target).long()
    names = tuple(str(digit) for digit in range(10))
    return Images(pixels.round().to(torch.uint8)[:, None], labels, names)


# Folders --------------------------------------------------------------------------------------


def _folder(folder: Path, size: int | None, gray: bool | None) -> Images:
    """Read a folder. Sub-folders with images are classes, sorted by name."""
    classes = [path for path in sorted(folder.iterdir()) if path.is_dir() and _pictures(path)]
    loose = _pictures(folder)
    if classes and loose:
        raise InputError(
            f"{folder} must hold either images or sub-folders of images, got both, such as "
            f"{loose[0].name} and {classes[0].name}/. Move the loose images into a sub-folder."
        )
    if not classes and not loose:
        raise InputError(
            f"{folder} must hold images ({', '.join(sorted(ENDINGS))}), or sub-folders of them, "
            "got none."
        )
    paths = loose or [path for one in classes for path in _pictures(one)]
    read = [_picture(path) for path in paths]
    if gray is None:
        gray = all(one.ndim == 2 for one in read)
    side = size or _common_side(paths, read)
    squares = [_square(torch.from_numpy(one), side, gray) for one in read]
    if loose:
        return Images(torch.stack(squares))
    numbers = [number for number, one in enumerate(classes) for _ in _pictures(one)]
    return Images(torch.stack(squares), torch.tensor(numbers), tuple(one.name for one in classes))


def _pictures(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.suffix.lower() in ENDINGS and p.is_file())


def _picture(path: Path) -> Bytes:
    """Return uint8 pixels (H, W) of a gray image, (H, W, 3) of any other."""
    try:
        from PIL import Image, UnidentifiedImageError
    except ImportError:
        raise MissingExtra("Reading image files", "image") from None
    try:
        with Image.open(path) as opened:
            image: Image.Image = opened
            if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
                image = image.convert("RGBA")
                image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
                image = image.convert("RGB")
            gray = image.mode in ("1", "L", "I", "I;16", "F")
            return np.array(image.convert("L" if gray else "RGB"), dtype=np.uint8)
    except (OSError, UnidentifiedImageError, ValueError, SyntaxError) as error:
        raise InputError(
            f"{path} must be an image, got: {error}. Mend the file, or move it elsewhere."
        ) from None


def _common_side(paths: Sequence[Path], read: Sequence[Bytes]) -> int:
    """Return the side that all images share. Raises `InputError` where `--size` must be given."""
    height, width = read[0].shape[:2]
    for path, one in zip(paths, read, strict=True):
        if one.shape[:2] != (height, width):
            raise InputError(
                f"{path} must be of the first image's size, {width} x {height}, got "
                f"{one.shape[1]} x {one.shape[0]}. Give a size for all with --size, such as 32."
            )
    return _side(min(height, width), f"The images of {paths[0].parent}")


def _side(side: int, what: str) -> int:
    if not SMALLEST <= side <= LARGEST:
        raise InputError(
            f"{what} must be {SMALLEST} to {LARGEST} pixels a side, got {side}. "
            "Give a size with --size, such as 32."
        )
    return side


def _square(pixels: Tensor, side: int, gray: bool) -> Tensor:
    """Return the middle square (C, side, side) of pixels (H, W) or (H, W, 3)."""
    x = pixels[None] if pixels.dim() == 2 else pixels.permute(2, 0, 1)
    x = _to_gray(x) if gray else x.expand(3, -1, -1)
    H, W = x.shape[1:]
    edge = min(H, W)
    top, left = (H - edge) // 2, (W - edge) // 2
    return scaled(x[None, :, top : top + edge, left : left + edge], side)[0]


def scaled(pixels: Tensor, side: int) -> Tensor:
    """Scale uint8 squares (N, C, S, S) to another side, averaging where it is smaller."""
    if pixels.size(-1) == side:
        return pixels.contiguous()
    y = F.interpolate(pixels.float(), (side, side), mode="bilinear", antialias=True)
    return y.round().clamp(0, 255).to(torch.uint8)


def _to_gray(x: Tensor) -> Tensor:
    """Return the luma (…, 1, H, W) of ITU-R BT.601, as image libraries do."""
    if x.size(-3) == 1:
        return x
    weights = torch.tensor([0.299, 0.587, 0.114])[:, None, None]
    return (x.float() * weights).sum(-3, keepdim=True).round().to(torch.uint8)


def _colored(images: Images, gray: bool | None) -> Images:
    if gray is None or images.channels == (1 if gray else 3):
        return images
    pixels = _to_gray(images.pixels) if gray else images.pixels.expand(-1, 3, -1, -1)
    return replace(images, pixels=pixels.contiguous())


def _fitted(images: Images, size: int | None) -> Images:
    if len(images) < 2:
        raise InputError(f"There must be at least 2 images, got {len(images)}.")
    side = size or _side(images.size, "The images")
    return replace(images, pixels=scaled(images.pixels, side))


# IDX files ------------------------------------------------------------------------------------


def _idx(paths: Sequence[Path]) -> Images:
    """Read one IDX file of images and, if given, one of labels, in either order."""
    arrays = [(path, _idx_array(path)) for path in paths]
    pictures = [(path, a) for path, a in arrays if a.ndim >= 3]
    labels = [(path, a) for path, a in arrays if a.ndim == 1]
    if len(pictures) != 1 or len(labels) > 1 or len(pictures) + len(labels) != len(arrays):
        told = ", ".join(f"{path.name} with {a.ndim} dimensions" for path, a in arrays)
        raise InputError(
            "IDX files must be one of images (3 dimensions, 4 with channels) and at most one of "
            f"labels (1 dimension), got {told}. Give one pair."
        )
    path, array = pictures[0]
    if not labels:
        return Images(_idx_pixels(path, array))
    labels_path, values = labels[0]
    if len(values) != len(array):
        raise InputError(
            f"{labels_path} must have a label for each of the {len(array)} images of {path}, got "
            f"{len(values)}. Give the two files that belong together."
        )
    classes = sorted({int(value) for value in values})
    number = {value: index for index, value in enumerate(classes)}
    indices = torch.tensor([number[int(value)] for value in values])
    return Images(_idx_pixels(path, array), indices, tuple(str(value) for value in classes))


def _idx_pixels(path: Path, array: Bytes) -> Tensor:
    """Return uint8 squares (N, C, S, S) of (N, H, W) or (N, H, W, 3)."""
    if array.ndim not in (3, 4) or (array.ndim == 4 and array.shape[3] not in (1, 3)):
        raise InputError(
            f"{path} must hold images (N, H, W) or (N, H, W, 3), got the shape {array.shape}."
        )
    x = torch.from_numpy(array.copy())
    x = x[:, None] if x.dim() == 3 else x.permute(0, 3, 1, 2)
    H, W = x.shape[-2:]
    edge = min(H, W)
    top, left = (H - edge) // 2, (W - edge) // 2
    return x[..., top : top + edge, left : left + edge].contiguous()


def _idx_array(path: Path) -> Bytes:
    """Return the array of an IDX file (LeCun, "The MNIST database"), of unsigned bytes."""
    mend = "Give a folder of images, 'digits', or IDX files such as MNIST's."
    try:
        raw = path.read_bytes()
        raw = gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw
    except FileNotFoundError:
        raise InputError(f"{path} must exist, got no such file or folder. {mend}") from None
    except (OSError, EOFError) as error:
        raise InputError(f"{path} must be readable, got: {error}. Fetch the file again.") from None
    if len(raw) < 4 or raw[:3] != b"\0\0\x08":
        raise InputError(
            f"{path} must be an IDX file of bytes, got {raw[:4]!r} at its start. {mend}"
        )
    rank = raw[3]
    start = 4 + 4 * rank
    shape = struct.unpack(f">{rank}I", raw[4:start]) if len(raw) >= start else (-1,)
    expected = math.prod(shape)
    if len(raw) - start != expected:
        raise InputError(
            f"{path} must hold {expected} values, as its head says ({shape}), got "
            f"{len(raw) - start}. Fetch the file again."
        )
    return np.frombuffer(raw, dtype=np.uint8, offset=start).reshape(shape)
