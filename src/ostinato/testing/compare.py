"""Compares states and reports bit for bit, and says where they differ."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from typing import Any


def differences(a: object, b: object, where: str = "") -> list[str]:
    """Return where two values differ: in type, value, dtype, shape or stride; empty if nowhere."""
    return list(_differ(a, b, where or "value"))


def _differ(a: Any, b: Any, where: str) -> Iterator[str]:
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        yield from _differ_mappings(a, b, where)
    elif isinstance(a, list | tuple) and isinstance(b, list | tuple):
        if len(a) != len(b):
            yield f"{where} has {len(a)} entries and {len(b)}"
        for index, (x, y) in enumerate(zip(a, b, strict=False)):
            yield from _differ(x, y, f"{where}[{index}]")
    elif hasattr(a, "dtype") or hasattr(b, "dtype"):
        yield from _differ_arrays(a, b, where)
    elif type(a) is float and type(b) is float:  # by bits: NaN is equal, 0.0 and -0.0 are not
        if struct.pack("<d", a) != struct.pack("<d", b):
            yield f"{where} is {a!r} and {b!r}"
    elif type(a) is not type(b) or a != b:
        yield f"{where} is {a!r} and {b!r}"


def _differ_mappings(a: Mapping[Any, Any], b: Mapping[Any, Any], where: str) -> Iterator[str]:
    for name in [*a, *(name for name in b if name not in a)]:
        if name not in a or name not in b:
            yield f"{where}[{name!r}] is only in {'the first' if name in a else 'the second'}"
        else:
            yield from _differ(a[name], b[name], f"{where}[{name!r}]")


def _differ_arrays(a: Any, b: Any, where: str) -> Iterator[str]:
    kinds = [
        (type(x).__name__, *(str(getattr(x, n, None)) for n in ("dtype", "shape"))) for x in (a, b)
    ]
    if kinds[0] != kinds[1]:
        yield f"{where} is {kinds[0]} and {kinds[1]}"
        return
    strides = [x.stride() if callable(getattr(x, "stride", None)) else x.strides for x in (a, b)]
    if strides[0] != strides[1]:
        yield f"{where} has the strides {strides[0]} and {strides[1]}"
    if _bytes(a) != _bytes(b):
        yield f"{where} differs in its values"


def _bytes(array: Any) -> bytes:
    if callable(getattr(array, "stride", None)):  # torch: any dtype, as bytes
        import torch

        flat = array.detach().cpu().contiguous().reshape(-1)
        return bytes(flat.view(torch.uint8).numpy().tobytes()) if flat.numel() else b""
    return bytes(array.tobytes())
