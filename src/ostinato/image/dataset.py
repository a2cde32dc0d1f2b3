"""Data sets of images: folders of files, IDX files or scikit-learn's digits.

Reading a file is `ostinato.media`'s part. Knows no training.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from ostinato.arguments import require
from ostinato.errors import InputError, MissingExtra
from ostinato.media import (
    IMAGE_SUFFIXES,
    UInt8Array,
    idx_images,
    middle_square,
    read_idx,
    read_pixels,
    scaled,
    to_gray,
)

SMALLEST, LARGEST = 8, 64


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
        """Return the images at these indices, in their order."""
        index = torch.as_tensor(chosen, dtype=torch.long)
        labels = None if self.labels is None else self.labels[index]
        return replace(self, pixels=self.pixels[index], labels=labels)

    def without_classes(self) -> Images:
        """Return the images without labels and names."""
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

    `size` is the side in pixels, 8 to 64; other images are cut to their middle square and scaled.
    None keeps the size, which all images must share. `gray` None: gray where all images are.
    Raises `InputError` that names the file.
    """
    if size is not None:
        require(SMALLEST <= size <= LARGEST, "size", f"{SMALLEST} to {LARGEST} pixels", size)
    if not sources:
        raise InputError("Images must come from a folder, IDX files or 'digits', got nothing.")
    first = Path(sources[0])
    if str(sources[0]) == "digits" and not first.exists():
        images = _digits()
    elif first.is_dir():
        if len(sources) > 1:
            raise InputError(
                f"A folder of images must be given alone, got also {sources[1]}. "
                "Put all images under one folder."
            )
        images = _folder(first, size, gray)
    else:
        images = _idx([Path(source) for source in sources])
    if len(images) < 2:
        raise InputError(f"There must be at least 2 images, got {len(images)}.")
    images = _colored(images, gray)
    side = size or _checked_side(images.size, "The images")
    return replace(images, pixels=scaled(images.pixels, side))


def hold_out(images: Images, share: float = 0.1, *, seed: int = 0) -> tuple[Images, Images]:
    """Split into training and validation images; the `share` to validate with depends on `seed`.

    Both keep the order of the images.
    """
    if not 0 <= share < 1:
        raise InputError(f"hold_out must be in [0, 1), got {share}.")
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))
    count = int(len(images) * share)
    return images.at(order[count:].sort().values), images.at(order[:count].sort().values)


def _digits() -> Images:
    """Return the 1,797 scans of 8 x 8 pixels (Alpaydin and Kaynak 1998) that come with sklearn."""
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise MissingExtra("The data set 'digits'", "image") from None
    loaded = load_digits()
    pixels = torch.from_numpy(loaded.images).float() * (255 / 16)  # its ink is 0 to 16
    labels = torch.from_numpy(loaded.target).long()
    names = tuple(str(digit) for digit in range(10))
    return Images(pixels.round().to(torch.uint8)[:, None], labels, names)


# Folders --------------------------------------------------------------------------------------


def _folder(folder: Path, size: int | None, gray: bool | None) -> Images:
    """Read a folder. Sub-folders with images are classes, sorted by name."""
    classes = [path for path in sorted(folder.iterdir()) if path.is_dir() and _files(path)]
    loose = _files(folder)
    if classes and loose:
        raise InputError(
            f"{folder} must hold either images or sub-folders of images, got both, such as "
            f"{loose[0].name} and {classes[0].name}/. Move the loose images into a sub-folder."
        )
    if not classes and not loose:
        raise InputError(
            f"{folder} must hold images ({', '.join(sorted(IMAGE_SUFFIXES))}), or sub-folders of "
            "them, got none."
        )
    paths = loose or [path for one in classes for path in _files(one)]
    arrays = [read_pixels(path) for path in paths]
    if gray is None:  # one color image makes all of them color: tensors have one shape
        gray = all(array.ndim == 2 for array in arrays)
    side = size or _common_side(paths, arrays)
    squares = [_square(torch.from_numpy(array), side, gray) for array in arrays]
    if loose:
        return Images(torch.stack(squares))
    labels = [number for number, one in enumerate(classes) for _ in _files(one)]
    return Images(torch.stack(squares), torch.tensor(labels), tuple(one.name for one in classes))


def _files(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES and p.is_file())


def _common_side(paths: Sequence[Path], arrays: Sequence[UInt8Array]) -> int:
    """Return the side that all images share. Raises `InputError` where `--size` is needed."""
    height, width = arrays[0].shape[:2]
    for path, array in zip(paths, arrays, strict=True):
        if array.shape[:2] != (height, width):
            raise InputError(
                f"{path} must be of the first image's size, {width} x {height}, got "
                f"{array.shape[1]} x {array.shape[0]}. Give a size for all with --size, such as 32."
            )
    return _checked_side(min(height, width), f"The images of {paths[0].parent}")


def _checked_side(side: int, what: str) -> int:
    if not SMALLEST <= side <= LARGEST:
        raise InputError(
            f"{what} must be {SMALLEST} to {LARGEST} pixels a side, got {side}. "
            "Give a size with --size, such as 32."
        )
    return side


def _square(pixels: Tensor, side: int, gray: bool) -> Tensor:
    """Return the middle square (C, side, side) of pixels (H, W) or (H, W, 3)."""
    x = pixels[None] if pixels.dim() == 2 else pixels.permute(2, 0, 1)  # (C, H, W)
    x = to_gray(x) if gray else x.expand(3, -1, -1)
    return scaled(middle_square(x)[None], side)[0]


def _colored(images: Images, gray: bool | None) -> Images:
    if gray is None or images.channels == (1 if gray else 3):
        return images
    pixels = to_gray(images.pixels) if gray else images.pixels.expand(-1, 3, -1, -1)
    return replace(images, pixels=pixels.contiguous())


# IDX files ------------------------------------------------------------------------------------


def _idx(paths: Sequence[Path]) -> Images:
    """Read one IDX file of images and, if given, one of labels, in either order."""
    arrays = [(path, read_idx(path)) for path in paths]
    images = [(path, a) for path, a in arrays if a.ndim >= 3]
    labels = [(path, a) for path, a in arrays if a.ndim == 1]
    if len(images) != 1 or len(labels) > 1 or len(images) + len(labels) != len(arrays):
        found = ", ".join(f"{path.name} with {a.ndim} dimensions" for path, a in arrays)
        raise InputError(
            "IDX files must be one of images (3 dimensions, 4 with channels) and at most one of "
            f"labels (1 dimension), got {found}. Give one pair."
        )
    path, array = images[0]
    if not labels:
        return Images(idx_images(path, array))
    labels_path, values = labels[0]
    if len(values) != len(array):
        raise InputError(
            f"{labels_path} must have a label for each of the {len(array)} images of {path}, got "
            f"{len(values)}. Give the two files that belong together."
        )
    # Labels need not be 0 to n - 1 (EMNIST's letters start at 1): classes are those that occur.
    classes, indices = torch.unique(torch.from_numpy(values.copy()), return_inverse=True)
    names = tuple(str(value) for value in classes.tolist())
    return Images(idx_images(path, array), indices, names)
