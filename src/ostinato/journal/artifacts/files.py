"""Artifacts as files and as small pictures: PNG, WAV and safetensors. Knows no run.

An artifact comes as its reference (kind, dtype, shape, rate) and the bytes of its elements.
"""

from __future__ import annotations

import json
import os
import wave
from collections.abc import Mapping
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import Any

from ostinato.errors import InputError, RunError
from ostinato.journal.artifacts.coding import (
    array_from,
    encode_png,
    rows_of_pixels,
    tensor_from,
)
from ostinato.journal.state.tensor_blocks import CODES

Reference = Mapping[str, Any]

SUFFIXES = {"image": ".png", "sound": ".wav", "tensor": ".safetensors"}
"""The usual file of each kind of artifact."""
WAVE_HEIGHT = 3  # a waveform's picture is so many times as wide as high
INK, PAPER = 40, 255
FULL_SCALE = 32767  # not 32768: +1.0 must not wrap around to the lowest value
_OTHER_CODES = {"complex64": ("F32", 2), "complex128": ("F64", 2)}  # as pairs of numbers


def save(reference: Reference, content: bytearray, path: Path) -> Path:
    """Write an artifact as the file that the path's suffix names, whole or not at all."""
    suffix, kind = path.suffix.lower(), reference["kind"]
    if suffix == ".safetensors":
        file = _safetensors(reference, content)
    elif suffix == ".png" and kind == "image":
        file = encode_png(_pixels(reference, content))
    elif suffix == ".wav" and kind == "sound":
        file = _wav(reference, content)
    else:
        either = "" if kind == "tensor" else f"{SUFFIXES[kind]} or "
        raise InputError(
            f"The file of this {kind} must end in {either}.safetensors, got {path.name}."
        )
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(file)
        os.replace(temporary, path)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise RunError(
            f"The file {path} could not be written: {error.strerror}. Name another folder."
        ) from None
    return path


def preview(reference: Reference, content: bytearray, side: int) -> bytes | None:
    """Return a PNG of at most `side` pixels a side; None for a tensor that is no picture."""
    if side < 1:
        raise InputError(f"side must be at least 1, got {side}.")
    if reference["kind"] == "image":
        return encode_png(_smaller(_pixels(reference, content), side))
    if reference["kind"] == "sound":
        return encode_png(_waveform(_samples(reference, content), side))
    return None


def _pixels(reference: Reference, content: bytearray) -> Any:
    """Return an image as uint8 pixels (H, W, C).

    Numbers other than uint8 lie in [-1, 1]; noise beyond is scaled down to variance 1, to be seen.
    """
    dtype, shape = reference["dtype"], tuple(reference["shape"])
    if dtype == "uint8":
        return rows_of_pixels(array_from(content, dtype, shape))
    x = tensor_from(content, dtype, shape).float().nan_to_num()
    x = x / x.square().mean().sqrt().clamp(min=1.0)
    return rows_of_pixels(((x.clamp(-1, 1) + 1) * 127.5).round().byte().numpy())


def _smaller(pixels: Any, side: int) -> Any:
    """Average blocks of pixels (H, W, C), so that no side is longer than `side`."""
    import numpy as np

    H, W, C = pixels.shape
    factor = -(-max(H, W) // side)
    if factor == 1:
        return np.ascontiguousarray(pixels)
    high, wide = max(1, H // factor), max(1, W // factor)
    cut = pixels[: high * factor, : wide * factor]
    blocks = cut.reshape(high, min(factor, H), wide, min(factor, W), C)
    return blocks.mean((1, 3)).round().astype(np.uint8)


def _samples(reference: Reference, content: bytearray) -> Any:
    """Return a sound's samples (N, channels) as int16."""
    import numpy as np

    x = tensor_from(content, reference["dtype"], tuple(reference["shape"]))
    x = x[:, None] if x.dim() == 1 else x
    if reference["dtype"] == "int16":
        return x.numpy()
    return np.round(x.double().nan_to_num().clamp(-1, 1).numpy() * FULL_SCALE).astype("<i2")


def _wav(reference: Reference, content: bytearray) -> bytes:
    samples, written = _samples(reference, content), BytesIO()
    with wave.open(written, "wb") as file:
        file.setnchannels(samples.shape[1])
        file.setsampwidth(2)
        file.setframerate(reference["rate"])
        file.writeframes(samples.tobytes())
    return written.getvalue()


def _waveform(samples: Any, side: int) -> Any:
    """Draw the envelope of a sound: in each column its lowest and highest sample."""
    import numpy as np

    samples = samples.astype(np.float64).mean(1) / FULL_SCALE
    height = max(3, side // WAVE_HEIGHT)
    pixels = np.full((height, side, 1), PAPER, np.uint8)
    for column, piece in enumerate(np.array_split(samples, side)):
        low, high = (piece.min(), piece.max()) if len(piece) else (0.0, 0.0)
        top, bottom = (round((1 - y) / 2 * (height - 1)) for y in (high, low))
        pixels[max(0, top) : min(height, bottom + 1), column] = INK
    return pixels


def _safetensors(reference: Reference, content: bytearray) -> bytes:
    """Return a file of the one tensor "artifact"; complex numbers are pairs of real ones."""
    dtype, shape = reference["dtype"], list(reference["shape"])
    code = CODES.get(dtype)
    if dtype in _OTHER_CODES:
        code, pair = _OTHER_CODES[dtype]
        shape.append(pair)
    if code is None:
        code, shape = "U8", [len(content)]
    metadata = {name: str(value) for name, value in reference.items()}
    entry = {"dtype": code, "shape": shape, "data_offsets": [0, len(content)]}
    header = json.dumps({"__metadata__": metadata, "artifact": entry}).encode()
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header + bytes(content)
