"""IDX files, the format of MNIST (LeCun, "The MNIST database of handwritten digits").

Reads arrays of unsigned bytes, packed with gzip or not. Knows no labels and no classes.
"""

from __future__ import annotations

import gzip
import math
import struct
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ostinato.arguments import reason
from ostinato.errors import InputError
from ostinato.media.image_io import UInt8Array, middle_square

GZIP = b"\x1f\x8b"
UNSIGNED_BYTES = b"\0\0\x08"  # two zero bytes, then the code of the element type
FIX = "Give a folder of images, 'digits', or IDX files such as MNIST's."


def read_idx(path: Path) -> UInt8Array:
    """Return the array of an IDX file. Raises `InputError` for a file that is damaged or none."""
    try:
        raw = path.read_bytes()
        # The content decides, not the suffix: MNIST's files are passed around in both forms.
        raw = gzip.decompress(raw) if raw[:2] == GZIP else raw
    except FileNotFoundError:
        raise InputError(f"{path} must exist, got no such file or folder. {FIX}") from None
    except (OSError, EOFError) as error:
        raise InputError(
            f"{path} must be readable, got: {reason(error)}. Download the file again."
        ) from None
    if len(raw) < 4 or raw[:3] != UNSIGNED_BYTES:
        raise InputError(
            f"{path} must be an IDX file of bytes, got {raw[:4]!r} at its start. {FIX}"
        )
    rank = raw[3]
    start = 4 + 4 * rank
    # A header that is cut off gives the shape (-1,), which no file length matches.
    shape = struct.unpack(f">{rank}I", raw[4:start]) if len(raw) >= start else (-1,)
    expected = math.prod(shape)
    if len(raw) - start != expected:
        raise InputError(
            f"{path} must hold {expected} values, as its header says ({shape}), got "
            f"{len(raw) - start}. Download the file again."
        )
    return np.frombuffer(raw, dtype=np.uint8, offset=start).reshape(shape)


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
