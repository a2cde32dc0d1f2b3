"""Data sets of images: folders of files, IDX files or scikit-learn's digits.

Reading a file is `ostinato.media`'s part. Knows no training.
"""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from ostinato.arguments import require
from ostinato.errors import InputError, MissingExtra
from ostinato.media import (
    IMAGE_SUFFIXES,
    idx_images,
    read_idx,
    read_pixels,
    scaled,
    square,
    to_gray,
)

SMALLEST, LARGEST = 8, 64
SPLITS = {"train", "training", "val", "valid", "validation", "test", "testing"}
SHOWN = 3  # folders that a warning names


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


DIGITS = "digits-8x8"
"""The name of scikit-learn's scans. The shipped model `digits` is of others, 28 x 28."""


def read_images(
    sources: Sequence[str | Path], *, size: int | None = None, gray: bool | None = None
) -> Images:
    """Read `digits-8x8`, a folder (its sub-folders are classes), or IDX files of images and labels.

    `size` is the side in pixels, 8 to 64; other images are cut to their middle square and scaled.
    None keeps the size, which all images must share. `gray` None: gray where all images are.
    Raises `InputError` that names the file.
    """
    if size is not None:
        require(SMALLEST <= size <= LARGEST, "size", f"{SMALLEST} to {LARGEST} pixels", size)
    if not sources:
        raise InputError(f"Images must come from a folder, IDX files or {DIGITS!r}, got nothing.")
    first = Path(sources[0])
    if str(sources[0]) == "digits" and not first.exists():
        raise InputError(
            f"Images must come from a folder, IDX files or {DIGITS!r}, got 'digits': that is the "
            f"shipped model, of 28 x 28 pixels. The scans of 8 x 8 are {DIGITS!r}."
        )
    if str(sources[0]) == DIGITS and not first.exists():
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
        raise MissingExtra(f"The data set {DIGITS!r}", "image") from None
    loaded = load_digits()
    pixels = torch.from_numpy(loaded.images).float() * (255 / 16)  # its ink is 0 to 16
    labels = torch.from_numpy(loaded.target).long()
    names = tuple(str(digit) for digit in range(10))
    return Images(pixels.round().to(torch.uint8)[:, None], labels, names)


# Folders --------------------------------------------------------------------------------------


def _folder(folder: Path, size: int | None, gray: bool | None) -> Images:
    """Read a folder. Sub-folders with images, at any depth, are classes, sorted by name."""
    inner = [path for path in sorted(folder.iterdir()) if path.is_dir() and not _hidden(path)]
    classes = {path.name: files for path in inner if (files := _files(path, deep=True))}
    loose = _files(folder)
    if classes and loose:
        raise InputError(
            f"{folder} must hold either images or sub-folders of images, got both, such as "
            f"{loose[0].name} and {next(iter(classes))}/. Move the loose images into a sub-folder."
        )
    if not classes and not loose:
        raise InputError(
            f"{folder} must hold images ({', '.join(sorted(IMAGE_SUFFIXES))}), or sub-folders of "
            "them, got none."
        )
    _check_classes(folder, classes)
    _warn_of_folders_without_images([path for path in inner if path.name not in classes])
    pixels = _read_squares(loose or [p for files in classes.values() for p in files], size, gray)
    if loose:
        return Images(pixels)
    labels = [number for number, files in enumerate(classes.values()) for _ in files]
    return Images(pixels, torch.tensor(labels), tuple(classes))


def _files(folder: Path, *, deep: bool = False) -> list[Path]:
    """Return the images of a folder, sorted; `deep` includes those of its sub-folders."""
    found: list[Path] = []
    for top, folders, names in os.walk(folder):
        # In place, as `os.walk` goes on with what is left: no notebook's or archive's own folders.
        folders[:] = [name for name in folders if deep and not _hidden(Path(name))]
        paths = (Path(top, name) for name in names)
        found += [p for p in paths if p.suffix.lower() in IMAGE_SUFFIXES and not _hidden(p)]
    return sorted(path for path in found if path.is_file())


def _hidden(path: Path) -> bool:
    """Return whether a file or folder is a program's own: `.ipynb_checkpoints`, `__MACOSX`."""
    return path.name.startswith((".", "__"))


def _check_classes(folder: Path, classes: Mapping[str, list[Path]]) -> None:
    """Raise `InputError` where the sub-folders look like levels above the classes."""
    deeper = [
        name
        for name, files in classes.items()
        if all(path.parent.parent != folder for path in files)
    ]
    if deeper and (set(classes) <= SPLITS or len(classes) == 1):
        raise InputError(
            f"{folder} must hold a sub-folder for each class, got {', '.join(classes)}, with the "
            f"images one level deeper. Name one of them, such as {folder / deeper[0]}."
        )


def _warn_of_folders_without_images(folders: Sequence[Path]) -> None:
    if folders:
        named = ", ".join(f"{path.name}/" for path in folders[:SHOWN])
        more = f" and {len(folders) - SHOWN} more" if len(folders) > SHOWN else ""
        warnings.warn(
            f"{named}{more} in {folders[0].parent} must hold images "
            f"({', '.join(sorted(IMAGE_SUFFIXES))}) to be a class, got none. Left out.",
            stacklevel=2,
        )


def _read_squares(paths: Sequence[Path], size: int | None, gray: bool | None) -> Tensor:
    """Return the squares (N, C, S, S) of image files. Raises `InputError` where `--size` is needed.

    One image is held whole at a time: large photographs need no more memory than small ones.
    """
    squares: list[Tensor] = []
    first: tuple[int, ...] = ()
    for path in paths:
        pixels = read_pixels(path)
        first = first or pixels.shape[:2]
        if size is None and pixels.shape[:2] != first:
            raise InputError(
                f"{path} must be of the first image's size, {first[1]} x {first[0]}, got "
                f"{pixels.shape[1]} x {pixels.shape[0]}. Give a size for all with --size, such as "
                "32."
            )
        side = size or _checked_side(min(first), f"The images of {path.parent}")
        squares.append(square(torch.from_numpy(pixels), side, gray=gray))
    # One color image makes all of them color: a tensor has one number of channels.
    channels = max(len(one) for one in squares)
    return torch.stack([one.expand(channels, -1, -1) for one in squares])


def _checked_side(side: int, what: str) -> int:
    if not SMALLEST <= side <= LARGEST:
        raise InputError(
            f"{what} must be {SMALLEST} to {LARGEST} pixels a side, got {side}. "
            "Give a size with --size, such as 32."
        )
    return side


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
