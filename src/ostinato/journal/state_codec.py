"""Turns a state of nested mappings, lists, tuples, numbers and tensors into JSON, and back.

What JSON has no form for becomes a mapping with the key "$": {"$": "tuple", "of": […]}.
"""

from __future__ import annotations

import base64
import math
import sys
from collections.abc import Mapping
from typing import Any, NoReturn

from ostinato.errors import InputError
from ostinato.journal.tensor_blocks import TensorBlocks, array_from, tensor_from

MARK = "$"
BIG_BITS = 4096  # longer integers are written in base 16: Python reads at most 4,300 decimals


class Packer:
    """Packs a state; its tensors and arrays go to `blocks`."""

    def __init__(self, blocks: TensorBlocks) -> None:
        self._blocks = blocks

    def pack(self, state: object, what: str) -> object:
        """Return the state as JSON. Raises `InputError` naming what cannot be saved, and where."""
        try:
            return self._pack(state, what, "")
        except RecursionError:
            raise InputError(f"{what} must not hold itself, got a value without end.") from None

    def _pack(self, value: object, where: str, name: str) -> object:
        if value is None or value is True or value is False:
            return value
        if isinstance(value, str):
            return str.__str__(value)  # a subclass, such as `Text`, becomes plain text
        # Before int and float: numpy's float64 is a float to isinstance, and must keep its type.
        if _of_library(value, "numpy"):
            return self._array(value, where, name)
        if isinstance(value, int):
            return _integer(int(value))
        if isinstance(value, float):
            return _float(float(value))
        if isinstance(value, dict):
            return self._mapping(value, where, name)
        if isinstance(value, list):
            return self._list(value, where, name)
        if isinstance(value, tuple):
            return {MARK: "tuple", "of": self._list(value, where, name)}
        return self._rare(value, where, name)

    def _rare(self, value: object, where: str, name: str) -> object:
        if isinstance(value, bytes):
            return {MARK: "bytes", "of": base64.b64encode(value).decode()}
        if isinstance(value, bytearray):
            return {MARK: "bytearray", "of": base64.b64encode(value).decode()}
        if isinstance(value, complex):
            return {MARK: "complex", "of": [_float(value.real), _float(value.imag)]}
        if _is_tensor(value):
            return self._tensor(value, where, name)
        _refuse(where, f"a {type(value).__module__}.{type(value).__qualname__}")

    def _list(self, value: list[Any] | tuple[Any, ...], where: str, name: str) -> list[object]:
        return [
            self._pack(each, f"{where}[{index}]", _joined(name, index))
            for index, each in enumerate(value)
        ]

    def _mapping(self, value: dict[Any, Any], where: str, name: str) -> object:
        packed = {
            key: self._pack(each, f"{where}[{key!r}]", _joined(name, key))
            for key, each in value.items()
        }
        # JSON turns other keys into text, and a key "$" would read as a mark: those become pairs.
        if MARK not in packed and all(type(key) is str for key in packed):
            return packed
        pairs = [[self._pack(key, f"a key of {where}", ""), each] for key, each in packed.items()]
        return {MARK: "dict", "of": pairs}

    def _tensor(self, value: Any, where: str, name: str) -> object:
        import torch

        if value.layout != torch.strided or value.is_quantized or value.device.type == "meta":
            _refuse(where, f"a tensor that is {value.layout} on {value.device}")
        return self._blocks.add_tensor(value, name or "state")

    def _array(self, value: Any, where: str, name: str) -> object:
        import numpy as np

        if not isinstance(value, np.ndarray | np.generic):
            _refuse(where, f"a {type(value).__module__}.{type(value).__qualname__}")
        if value.dtype.kind not in "biufc":  # objects would need pickle
            _refuse(where, f"an array of {value.dtype}")
        if isinstance(value, np.generic):
            text = base64.b64encode(value.tobytes()).decode()
            return {MARK: "scalar", "dtype": value.dtype.str, "of": text}
        return self._blocks.add_array(value, name or "state")


def _refuse(where: str, got: str) -> NoReturn:
    raise InputError(
        f"{where} must be a tensor, an array of numbers, a number, text, bytes, None, or a list, "
        f"tuple or mapping of these, got {got}. Let state_dict return it as one of these."
    )


def _joined(name: str, key: object) -> str:
    return f"{name}.{key}" if name else str(key)


def _of_library(value: object, library: str) -> bool:
    # By its name, so that a state without arrays imports no library.
    return type(value).__module__.partition(".")[0] == library


def _is_tensor(value: object) -> bool:
    """Ask torch only where it is loaded: a state of tensors cannot come without it."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


def _integer(value: int) -> object:
    return value if value.bit_length() < BIG_BITS else {MARK: "int", "of": hex(value)}


def _float(value: float) -> object:
    return value if math.isfinite(value) else {MARK: "float", "of": repr(value)}


# Back -----------------------------------------------------------------------------------------


def unpack(value: Any, memories: Mapping[str, Any]) -> Any:
    """Read back what `pack` returned. `memories` are the blocks by name."""
    if isinstance(value, list):
        return [unpack(each, memories) for each in value]
    if not isinstance(value, dict):
        return value
    match value.get(MARK):
        case None:
            return {key: unpack(each, memories) for key, each in value.items()}
        case "tensor":
            return tensor_from(value, memories)
        case "array":
            return array_from(value, memories)
        case "dict":
            pairs = value["of"]
            return {unpack(key, memories): unpack(each, memories) for key, each in pairs}
        case "tuple":
            return tuple(unpack(each, memories) for each in value["of"])
    return _rare(value)


def _rare(value: dict[str, Any]) -> object:
    content = value["of"]
    match value[MARK]:
        case "bytes":
            return base64.b64decode(content)
        case "bytearray":
            return bytearray(base64.b64decode(content))
        case "int":
            return int(content, 16)
        case "float":
            return float(content)
        case "complex":
            real, imaginary = (unpack(each, {}) for each in content)
            return complex(real, imaginary)
        case "scalar":
            return _scalar(value["dtype"], content)
    raise ValueError(f"a value of the unknown kind {value[MARK]!r}")


def _scalar(dtype: str, content: str) -> object:
    import numpy as np

    return np.frombuffer(base64.b64decode(content), np.dtype(dtype))[0]
