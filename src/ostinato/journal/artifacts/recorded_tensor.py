"""Tensors and arrays as JSON: small ones are lists of numbers, larger ones hold their bytes.

So they are written outside a journal, and stand in the steps of journals up to schema 4; of those
that are too large only the shape is kept. In a journal of today, larger ones are artifacts. Imports
neither torch nor numpy by itself.
"""

from __future__ import annotations

import base64
import math
import sys
import zlib
from collections.abc import Mapping
from typing import Any

from ostinato.errors import RunError

LISTED = 4096
"""Elements of a tensor that is still written as lists."""

KEPT_PIXELS = 1 << 24
"""Bytes of a tensor of type uint8 that is kept whole: 16 MiB of pixels, which someone will see."""
KEPT = (1 << 20) - 1
"""The same for all other types: an image of 256 x 256 in color, no latent of 1024 x 1024."""


KEYS = ("shape", "dtype")


def recorded(value: Any) -> object:
    """Return a tensor or array as JSON: lists, or a mapping with its shape, type and bytes."""
    shape = [int(n) for n in getattr(value, "shape", ())]
    if math.prod(shape) <= LISTED:
        return value.tolist()
    dtype = name_of_dtype(value)
    content = bytes_of(value)
    if content is None:
        return {"shape": shape, "dtype": dtype}
    if len(content) > (KEPT_PIXELS if dtype == "uint8" else KEPT):
        # The checksum tells a repetition that differs.
        return {"shape": shape, "dtype": dtype, "crc": zlib.crc32(content)}
    return {"shape": shape, "dtype": dtype, "base64": base64.b64encode(content).decode()}


def name_of_dtype(value: Any) -> str:
    """Return the name of a tensor's type, which torch and numpy have in common."""
    kind: Any = getattr(value, "dtype", "")
    # numpy's name leaves out the order of the bytes, which are turned to one order.
    return str(getattr(kind, "name", kind)).removeprefix("torch.")


def bytes_of(value: Any) -> memoryview | None:
    """Return the elements in order, the lowest byte first; None for what holds no numbers."""
    if hasattr(value, "detach"):  # a torch tensor
        import torch

        if value.layout != torch.strided or value.is_quantized or value.device.type == "meta":
            return None
        flat = value.detach().cpu().resolve_conj().resolve_neg().contiguous().view(-1)
        return None if sys.byteorder != "little" else flat.view(torch.uint8).numpy().data
    import numpy as np

    if not isinstance(value, np.ndarray) or value.dtype.kind not in "biufc":
        return None
    ordered = np.ascontiguousarray(value, dtype=value.dtype.newbyteorder("<"))
    return ordered.reshape(-1).view(np.uint8).data


def tensor_in(value: Mapping[str, Any]) -> Any:
    """Return the torch tensor of a mapping that `recorded` returned.

    Raises `RunError` where only the shape was recorded.
    """
    import torch

    if "base64" not in value:
        raise RunError(
            f"The report must hold the tensor, got only its shape {value.get('shape')}: it holds "
            "no numbers, or was recorded by an older version. Compute it again."
        )
    content = bytearray(base64.b64decode(value["base64"]))
    flat = torch.frombuffer(content, dtype=getattr(torch, value["dtype"]))
    # A copy: the bits of a product can depend on the alignment, which is the allocator's then.
    return flat.reshape(value["shape"]).clone()


def is_kept_whole(value: object) -> bool:
    """Whether a report's value is a tensor that was kept in its JSON, as bytes."""
    return isinstance(value, dict) and value.keys() == {*KEYS, "base64"}


def shortened(value: object) -> object:
    """Return a report for the eyes: of large tensors only shape and type."""
    if isinstance(value, dict) and value.keys() in ({*KEYS, "base64"}, {*KEYS, "crc"}):
        return {"shape": value["shape"], "dtype": value["dtype"]}
    if isinstance(value, dict):
        return {name: shortened(each) for name, each in value.items()}
    return [shortened(each) for each in value] if isinstance(value, list) else value
