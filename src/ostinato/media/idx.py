"""IDX files, the format of MNIST (LeCun, "The MNIST database of handwritten digits").

Reads arrays of unsigned bytes, packed with gzip or not. Knows no labels and no classes.
"""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
import torch
from torch import Tensor

from ostinato.arguments import reason
from ostinato.errors import InputError
from ostinato.media.image_io import UInt8Array, middle_square

GZIP = b"\x1f\x8b"
UNSIGNED_BYTES = b"\0\0\x08"  # two zero bytes, then the code of the element type
MOST_BYTES = 2**32  # some hundred times MNIST
PART = 2**24
FIX = "Give a folder of images, 'digits-8x8', or IDX files such as MNIST's."


def read_idx(path: Path) -> UInt8Array:
    """Return the array of an IDX file. Raises `InputError` for a file that is damaged or none."""
    try:
        with path.open("rb") as file:
            packed = file.read(2) == GZIP
        # The content decides, not the suffix: MNIST's files are passed around in both forms.
        with cast(BinaryIO, gzip.open(path) if packed else path.open("rb")) as source:
            shape = _shape(path, source)
            # No more than the header says, and one byte: a small file may unpack to any size.
            values = _at_most(math.prod(shape) + 1, source)
    except FileNotFoundError:
        raise InputError(f"{path} must exist, got no such file or folder. {FIX}") from None
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(
            f"{path} must be readable, got: {reason(error)}. Download the file again."
        ) from None
    if len(values) != math.prod(shape):
        got = "more" if len(values) > math.prod(shape) else str(len(values))
        raise InputError(
            f"{path} must hold {math.prod(shape)} values, as its header says ({shape}), got {got}. "
            "Download the file again."
        )
    return np.frombuffer(values, dtype=np.uint8).reshape(shape)


def _at_most(count: int, source: BinaryIO) -> bytes:
    """Read up to `count` bytes, in parts: memory for all would be taken before any is there."""
    content = bytearray()
    while part := source.read(min(PART, count - len(content))):
        content += part
    return bytes(content)


def _shape(path: Path, source: BinaryIO) -> tuple[int, ...]:
    """Read the header. Raises `InputError` for another kind of file, and for an impossible size."""
    magic = source.read(4)
    if len(magic) < 4 or magic[:3] != UNSIGNED_BYTES:
        raise InputError(f"{path} must be an IDX file of bytes, got {magic!r} at its start. {FIX}")
    sizes = source.read(4 * magic[3])
    if len(sizes) < 4 * magic[3]:
        raise InputError(
            f"{path} must have a header of {magic[3]} sizes, got its end. Download the file again."
        )
    shape = struct.unpack(f">{magic[3]}I", sizes)
    if not 0 < math.prod(shape) <= MOST_BYTES:
        raise InputError(
            f"{path} must hold 1 to {MOST_BYTES:,} values, got the sizes {shape} in its header. "
            "Download the file again."
        )
    return shape


def idx_images(path: Path, array: UInt8Array) -> Tensor:
    """Return uint8 squares (N, C, S, S) of an array (N, H, W) or (N, H, W, C), C 1 or 3.

    Raises `InputError` for another shape; `path` is the file that the message names.
    """
    if array.ndim not in (3, 4) or (array.ndim == 4 and array.shape[3] not in (1, 3)):
        raise InputError(
            f"{path} must hold images (N, H, W) or (N, H, W, 3), got the shape {array.shape}."
        )
    x = torch.from_numpy(array.copy())  # `frombuffer` is read-only, which torch warns of
    x = x[:, None] if x.dim() == 3 else x.permute(0, 3, 1, 2)  # (N, C, H, W)
    return middle_square(x).contiguous()
