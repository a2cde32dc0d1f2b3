"""Turns a state of nested mappings, lists, tuples, numbers and tensors into JSON, and back.

What JSON has no form for becomes a mapping with the key "$": {"$": "tuple", "of": […]}.
"""

from __future__ import annotations

import base64
import math
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

from ostinato.errors import InputError
from ostinato.journal.artifacts.artifact import Artifact, Sound, reference_to
from ostinato.journal.state.tensor_blocks import TensorBlocks, array_from, tensor_from

MARK = "$"
REFERENCE = re.compile(r'\{"\$":"artifact","of":"([0-9a-f]+)"')
"""A reference to an artifact in the JSON of a packed state."""
BIG_BITS = 4096  # longer integers are written in base 16: Python reads at most 4,300 decimals


class Unchanging(dict[str, Any]):
    """A part of a state that never changes after it was made, nor do the tensors in it.

    So checkpoints of a run keep its larger tensors once, as artifacts, however many hold them.
    """

    def __deepcopy__(self, memo: object) -> Unchanging:
        return self


class Packer:
    """Packs a state; its tensors and arrays go to `blocks`.

    With a list of `artifacts`, those of `Unchanging` parts are appended to it, and referred to.
    """

    def __init__(self, blocks: TensorBlocks, artifacts: list[Any] | None = None) -> None:
        self._blocks = blocks
        self._artifacts = artifacts
        self._unchanging = False

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
        if isinstance(value, Unchanging) and self._artifacts is not None:
            return self._unchanging_part(value, where, name)
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
        if isinstance(value, Sound):
            return self._artifact(value, "sound", True) or {
                MARK: "sound",
                "of": self._pack(value.samples, f"{where}.samples", name),
                "rate": value.rate,
            }
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

    def _unchanging_part(self, value: dict[Any, Any], where: str, name: str) -> object:
        outside, self._unchanging = self._unchanging, True
        try:
            return self._mapping(value, where, name)
        finally:
            self._unchanging = outside

    def _artifact(self, value: Any, kind: str, dense: bool) -> object:
        """Return the reference to a larger tensor of an unchanging part; None for any other."""
        if self._artifacts is None or not self._unchanging or not dense:
            return None
        reference = reference_to(value)
        if not reference:
            return None
        self._artifacts.append(value)
        # The hash behind the mark: `REFERENCE` looks for both.
        packed: dict[str, object] = {MARK: "artifact", "of": reference["artifact"]}
        if kind != "tensor":
            packed["as"] = kind
        elif list(value.stride()) != _usual_stride(value.shape):
            packed["stride"] = list(value.stride())
        return packed

    def _tensor(self, value: Any, where: str, name: str) -> object:
        import torch

        if value.layout != torch.strided or value.is_quantized or value.device.type == "meta":
            _refuse(where, f"a tensor that is {value.layout} on {value.device}")
        kept = self._artifact(value, "tensor", _fills_its_memory(value))
        return kept or self._blocks.add_tensor(value, name or "state")

    def _array(self, value: Any, where: str, name: str) -> object:
        import numpy as np

        if not isinstance(value, np.ndarray | np.generic):
            _refuse(where, f"a {type(value).__module__}.{type(value).__qualname__}")
        if value.dtype.kind not in "biufc":  # objects would need pickle
            _refuse(where, f"an array of {value.dtype}")
        if isinstance(value, np.generic):
            text = base64.b64encode(value.tobytes()).decode()
            return {MARK: "scalar", "dtype": value.dtype.str, "of": text}
        plain = value.flags.c_contiguous and value.dtype.isnative
        kept = self._artifact(value, "array", plain)
        return kept or self._blocks.add_array(value, name or "state")


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


def _fills_its_memory(tensor: Any) -> bool:
    """Whether a tensor's elements lie in memory once each and without gaps, in any order."""
    pairs = sorted(zip(tensor.stride(), tensor.shape, strict=True))
    expected = 1
    for stride, size in pairs:
        if size != 1 and stride != expected:
            return False
        expected *= size
    return True


def _usual_stride(shape: Sequence[int]) -> list[int]:
    """Return the strides of a new tensor."""
    strides, reach = [], 1
    for size in reversed(shape):
        strides.append(reach)
        reach *= max(1, size)
    return strides[::-1]


def _integer(value: int) -> object:
    return value if value.bit_length() < BIG_BITS else {MARK: "int", "of": hex(value)}


def _float(value: float) -> object:
    return value if math.isfinite(value) else {MARK: "float", "of": repr(value)}


# Back -----------------------------------------------------------------------------------------


Find = Callable[[str], Artifact] | None
"""Returns the artifact of a hash."""


def unpack(value: Any, memories: Mapping[str, Any], find: Find = None) -> Any:
    """Read back what `pack` returned. `memories` are the blocks by name."""
    if isinstance(value, list):
        return [unpack(each, memories, find) for each in value]
    if not isinstance(value, dict):
        return value
    match value.get(MARK):
        case None:
            return {key: unpack(each, memories, find) for key, each in value.items()}
        case "artifact":
            return _from_artifact(value, find)
        case "tensor":
            return tensor_from(value, memories)
        case "array":
            return array_from(value, memories)
        case "dict":
            pairs = value["of"]
            return {unpack(key, memories): unpack(each, memories, find) for key, each in pairs}
        case "tuple":
            return tuple(unpack(each, memories, find) for each in value["of"])
        case "sound":
            return Sound(unpack(value["of"], memories, find), value["rate"])
    return _rare(value)


def _from_artifact(value: dict[str, Any], find: Find) -> Any:
    if find is None:
        raise ValueError("it refers to artifacts of a journal: load it with Run.load")
    artifact = find(value["of"])
    if value.get("as") == "array":
        return artifact.array().copy()
    tensor = artifact.tensor()
    if value.get("as") == "sound":
        return Sound(tensor, artifact["rate"])
    if "stride" not in value:
        return tensor
    # The bits of a product can depend on the order of the elements in memory.
    import torch

    return torch.empty_strided(tensor.shape, value["stride"], dtype=tensor.dtype).copy_(tensor)


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
