"""How the bytes of a tensor are kept: as a PNG, as deflated planes of bytes, or as they are.

Pixels are a PNG with the filters None, Sub and Up only, which numpy undoes without a loop over
pixels. Measured on photographs of 64 x 64, it takes 3% more than Pillow's PNG and a third of its
time. Of other numbers each byte of an element is a plane of its own: signs and exponents deflate
well, the low bits of a fraction hardly ever.
"""

from __future__ import annotations

import math
import struct
import zlib
from typing import Any

from ostinato.errors import RunError

PNG, PLANES, RAW = "png", "planes", "raw"
SIGNATURE = b"\x89PNG\r\n\x1a\n"
COLOR_TYPES = {1: 0, 3: 2, 4: 6}  # by the number of channels: gray, color, color with alpha
SPARE_BITS = 0.4  # a plane is deflated where its bytes have this many bits less than 8, each
REPEATS = 4  # of pixels that deflate so well that a search for repeated texts is worth its time
PLANE_HEADER = struct.Struct("<?Q")  # whether a plane is deflated, and the bytes of it that follow


def is_pixels(dtype: str, shape: tuple[int, ...]) -> bool:
    """Whether a tensor of this type and shape is one image of 8 bits a channel."""
    small = math.prod(shape) < 1 << 30  # a chunk of a PNG holds 2 GiB
    return dtype == "uint8" and small and channels_of(shape) is not None


def channels_of(shape: tuple[int, ...]) -> tuple[int, bool] | None:
    """Return an image's channels, and whether they come first; None for another shape."""
    if len(shape) == 2 and min(shape) > 1:
        return 1, False
    if len(shape) != 3 or 0 in shape:
        return None
    if shape[0] in COLOR_TYPES and min(shape[1:]) > 4:
        return shape[0], True
    if shape[2] in COLOR_TYPES and min(shape[:2]) > 4:
        return shape[2], False
    return None


def encode_content(memory: memoryview, dtype: str, shape: tuple[int, ...]) -> tuple[str, bytes]:
    """Return the coding that was chosen, and the bytes to keep."""
    import numpy as np

    flat = np.frombuffer(memory, np.uint8)
    if is_pixels(dtype, shape):
        return PNG, encode_png(rows_of_pixels(flat.reshape(shape)))
    count = math.prod(shape)
    planes = flat.reshape(count, -1).T if count else flat.reshape(1, 0)
    kept = [_plane(plane.tobytes(), np.bincount(plane, minlength=256)) for plane in planes]
    content = b"".join(kept)
    return (PLANES, content) if len(content) < len(flat) else (RAW, flat.tobytes())


def decode_content(coding: str, content: bytes, shape: tuple[int, ...]) -> bytearray:
    """Return the bytes of the elements. Raises `ValueError` for what is damaged."""
    if coding == RAW:
        return bytearray(content)
    if coding == PLANES:
        return _joined_planes(content, math.prod(shape))
    found = channels_of(shape)
    if coding != PNG or found is None:
        raise ValueError(f"an unknown coding {coding!r}; a newer Ostinato may have written it")
    channels, come_first = found
    H, W = shape[1:] if come_first else shape[:2]
    pixels = decode_png(content, H, W, channels)
    return bytearray((pixels.transpose(2, 0, 1) if come_first else pixels).tobytes())


def tensor_from(content: bytearray, dtype: str, shape: tuple[int, ...]) -> Any:
    """Return a new torch tensor of these bytes. Raises `RunError` for a type that torch lacks."""
    import torch

    found = getattr(torch, dtype, None)
    if not isinstance(found, torch.dtype):
        raise RunError(f"torch must know the type of an artifact, got {dtype}. Use array().")
    if not content:
        return torch.empty(shape, dtype=found)
    # A copy: the bits of a product can depend on the alignment, which is the allocator's then.
    return torch.frombuffer(content, dtype=found).reshape(shape).clone()


def array_from(content: bytearray, dtype: str, shape: tuple[int, ...]) -> Any:
    """Return a numpy array of these bytes. Raises `RunError` for a type that numpy lacks."""
    import numpy as np

    try:
        found = np.dtype(dtype)
    except TypeError:
        raise RunError(
            f"numpy must know the type of an artifact, got {dtype}. Use tensor()."
        ) from None
    return np.frombuffer(content, found.newbyteorder("<")).reshape(shape)


def _plane(plane: bytes, counts: Any) -> bytes:
    """Return one plane with its header, deflated where that pays."""
    import numpy as np

    # The entropy, which takes a tenth of the time of an attempt that does not pay.
    shares = counts[counts > 0] / max(1, len(plane))
    if -(shares * np.log2(shares)).sum() > 8 - SPARE_BITS:
        return PLANE_HEADER.pack(False, len(plane)) + plane
    packed = zlib.compress(plane, 1)
    return PLANE_HEADER.pack(True, len(packed)) + packed


def _joined_planes(content: bytes, count: int) -> bytearray:
    import numpy as np

    planes, at = [], 0
    while at < len(content):
        try:
            deflated, size = PLANE_HEADER.unpack_from(content, at)
        except struct.error as error:
            raise ValueError(str(error)) from None
        at += PLANE_HEADER.size
        plane = content[at : at + size]
        planes.append(_inflated(plane, count) if deflated else plane)
        at += size
    if not planes or any(len(plane) != count for plane in planes):
        raise ValueError("its planes are not of the length of its shape")
    columns = [np.frombuffer(plane, np.uint8) for plane in planes]
    return bytearray(np.stack(columns, axis=1).tobytes())


def _inflated(data: bytes, size: int) -> bytes:
    """Inflate to a known size: a damaged text must not demand all memory."""
    inflater = zlib.decompressobj()
    try:
        found = inflater.decompress(data, size)
    except zlib.error as error:
        raise ValueError(str(error)) from None
    if len(found) != size:
        raise ValueError(f"it must hold {size} bytes, got {len(found)}")
    return found


# PNG ------------------------------------------------------------------------------------------


def rows_of_pixels(pixels: Any) -> Any:
    """Return an image's array (H, W, C) of pixels that are (C, H, W), (H, W, C) or (H, W)."""
    channels = channels_of(pixels.shape)
    assert channels is not None
    if pixels.ndim == 2:
        return pixels[..., None]
    return pixels.transpose(1, 2, 0) if channels[1] else pixels


def encode_png(pixels: Any) -> bytes:
    """Write uint8 pixels (H, W, C), C one of 1, 3 and 4, as a PNG file."""
    H, W, C = pixels.shape
    header = struct.pack(">IIBBBBB", W, H, 8, COLOR_TYPES[C], 0, 0, 0)
    data = _deflated(_filtered(pixels.reshape(H, W * C), C))
    chunks = ((b"IHDR", header), (b"IDAT", data), (b"IEND", b""))
    return SIGNATURE + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        for name, body in chunks
    )


def _filtered(rows: Any, channels: int) -> bytes:
    """Return each row behind its filter's number: the one of the smallest differences."""
    import numpy as np

    H = len(rows)
    candidates = np.stack([rows] * 3)
    candidates[1, :, channels:] -= rows[:, :-channels]  # Sub
    candidates[2, 1:] -= rows[:-1]  # Up
    size = np.minimum(candidates, 0 - candidates).sum(2, dtype=np.int64)
    chosen = size.argmin(0)
    filtered = np.empty((H, rows.shape[1] + 1), np.uint8)
    filtered[:, 0] = chosen
    filtered[:, 1:] = candidates[chosen, np.arange(H)]
    return filtered.tobytes()


def _deflated(data: bytes) -> bytes:
    # Runs and Huffman codes alone: as small as zlib's usual search on photographs, in a fifth of
    # the time. Drawings have patterns that only a search finds, and are quickly searched.
    runs = zlib.compressobj(1, zlib.DEFLATED, 15, 9, zlib.Z_RLE)
    packed = runs.compress(data) + runs.flush()
    if len(packed) * REPEATS > len(data):
        return packed
    return min(packed, zlib.compress(data, 6), key=len)


def decode_png(content: bytes, H: int, W: int, channels: int) -> Any:
    """Return the pixels (H, W, C) of a PNG that `encode_png` wrote.

    Raises `ValueError` for any other.
    """
    import numpy as np

    expected = struct.pack(">IIBBBBB", W, H, 8, COLOR_TYPES[channels], 0, 0, 0)
    if content[:8] != SIGNATURE or content[16:29] != expected:
        raise ValueError(f"it must be a PNG of {W} x {H} with {channels} channels")
    size = int.from_bytes(content[33:37], "big")
    data = _inflated(content[41 : 41 + size], H * (W * channels + 1))
    table = np.frombuffer(data, np.uint8).reshape(H, W * channels + 1)
    return _unfiltered(table[:, 0], table[:, 1:].copy(), channels)


def _unfiltered(filters: Any, rows: Any, channels: int) -> Any:
    import numpy as np

    H, width = rows.shape
    sub = filters == 1
    pixels = rows[sub].reshape(-1, width // channels, channels)
    rows[sub] = np.cumsum(pixels, axis=1, dtype=np.uint8).reshape(-1, width)
    up = filters == 2
    # Each run of rows that are differences to the row above is summed at once.
    edges = np.flatnonzero(np.diff(np.concatenate(([False], up, [False])).astype(np.int8)))
    for start, end in edges.reshape(-1, 2):
        first = max(0, start - 1)
        rows[first:end] = np.cumsum(rows[first:end], axis=0, dtype=np.uint8)
    return rows.reshape(H, width // channels, channels)
