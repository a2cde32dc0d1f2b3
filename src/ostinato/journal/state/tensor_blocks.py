"""The memory of tensors and arrays, as blocks of bytes: what a checkpoint's file is made of.

Tensors that share memory become one block. torch and numpy are imported only where a state holds
something of theirs. Knows no file.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

ALIGNED = 64
"""Bytes: a loaded view has the address of the saved one, modulo this.

It is the alignment of torch's allocator on a CPU, on which the bits of a product can depend.
"""

# The safetensors format's codes for the types of both libraries; others are written as bytes.
CODES = {
    "bool": "BOOL",
    "uint8": "U8",
    "int8": "I8",
    "float8_e5m2": "F8_E5M2",
    "float8_e4m3fn": "F8_E4M3",
    "int16": "I16",
    "uint16": "U16",
    "float16": "F16",
    "bfloat16": "BF16",
    "int32": "I32",
    "uint32": "U32",
    "float32": "F32",
    "int64": "I64",
    "uint64": "U64",
    "float64": "F64",
}


@dataclass(frozen=True, slots=True)
class TensorBlock:
    """A piece of the file: its bytes, and how a reader of safetensors sees it."""

    name: str
    code: str
    shape: list[int]
    memory: memoryview

    @property
    def bytes(self) -> int:
        """The size in bytes."""
        return self.memory.nbytes


@dataclass(slots=True)
class _View:
    """A tensor to be saved, and the record of it in the tree, which is completed at the end."""

    record: dict[str, object]
    tensor: Any
    name: str
    start: int  # the bytes of the storage that it covers
    end: int


@dataclass(slots=True)
class TensorBlocks:
    """Collects tensors and arrays; `finish` makes blocks of them.

    Tensors are grouped by their storage, so that what shares memory shares it again after loading.
    """

    _groups: dict[object, list[_View]] = field(default_factory=lambda: defaultdict(list))
    _arrays: list[tuple[dict[str, object], Any, str]] = field(default_factory=list)
    _names: set[str] = field(default_factory=set)

    def add_tensor(self, tensor: Any, name: str) -> dict[str, object]:
        """Take a strided torch tensor; return its record, complete after `finish`."""
        tensor = tensor.detach().cpu()  # of another device: what shares memory there is saved twice
        # A conjugate or negative view is lazy: its memory holds other numbers than it shows.
        if tensor.is_conj():
            tensor = tensor.resolve_conj()
        if tensor.is_neg():
            tensor = tensor.resolve_neg()
        size, start = tensor.element_size(), tensor.storage_offset() * tensor.element_size()
        reach = sum((n - 1) * s for n, s in zip(tensor.shape, tensor.stride(), strict=True))
        end = start + (reach + 1) * size if tensor.numel() else start
        record: dict[str, object] = {
            "$": "tensor",
            "dtype": str(tensor.dtype).removeprefix("torch."),
            "shape": list(tensor.shape),
            "stride": list(tensor.stride()),
        }
        shared: object = (str(tensor.device), tensor.untyped_storage().data_ptr())
        key = shared if tensor.numel() else id(record)  # all empty storages have the address 0
        self._groups[key].append(_View(record, tensor, name, start, end))
        return record

    def add_array(self, array: Any, name: str) -> dict[str, object]:
        """Take a numpy array of numbers; return its record."""
        record: dict[str, object] = {
            "$": "array",
            "dtype": array.dtype.str,
            "shape": list(array.shape),
            "stride": list(array.strides),
        }
        self._arrays.append((record, array, name))
        return record

    def finish(self) -> list[TensorBlock]:
        """Make the blocks, the most strictly aligned first, and complete the records."""
        made = [self._of_group(views) for views in self._groups.values()]
        made += [self._of_array(*each) for each in self._arrays]
        # Blocks follow each other without gaps, as the format demands: in this order each starts
        # at a multiple of its own element size.
        return [block for _, block in sorted(made, key=lambda pair: -pair[0])]

    def _of_group(self, views: list[_View]) -> tuple[int, TensorBlock]:
        first = views[0]
        one = all(_same_view(first, view) for view in views)
        name = self._new_name(first.name)
        code = CODES.get(str(first.record["dtype"]))
        # A tensor that shares its memory with no other is one that any reader of the format
        # understands. Views of shared memory are kept as bytes, and the tree knows the rest.
        if one and code and first.tensor.is_contiguous() and first.start % ALIGNED == 0:
            memory = _bytes_of(first.tensor, first.start, first.end)
            block = TensorBlock(name, code, list(first.tensor.shape), memory)
            start = first.start
        else:
            start = min(view.start for view in views) // ALIGNED * ALIGNED
            memory = _bytes_of(first.tensor, start, max(view.end for view in views))
            block = TensorBlock(name, "U8", [memory.nbytes], memory)
        for view in views:
            size = view.tensor.element_size()
            view.record.update(block=name, offset=(view.start - start) // size)
        return first.tensor.element_size(), block

    def _of_array(
        self, record: dict[str, object], array: Any, name: str
    ) -> tuple[int, TensorBlock]:
        import numpy as np

        name = self._new_name(name)
        code = CODES.get(array.dtype.name) if array.dtype.isnative else None
        record["block"] = name
        if code and array.flags.c_contiguous and sys.byteorder == "little":
            record["offset"] = 0
            memory = array.reshape(-1).view(np.uint8).data
            return array.itemsize, TensorBlock(name, code, list(array.shape), memory)
        # Strides may be negative or leave gaps: copied into a buffer of the same layout, they come
        # back as they are.
        low, size = _reach(array.shape, array.strides, array.itemsize)
        buffer = np.zeros(size, np.uint8)
        _view_of(buffer, array.dtype, array.shape, array.strides, -low)[...] = array
        record["offset"] = -low
        return array.itemsize, TensorBlock(name, "U8", [size], buffer.data)

    def _new_name(self, name: str) -> str:
        name = name if name.isascii() and name.isprintable() else "tensor"
        new, count = name, 1
        while new in self._names or new == "__metadata__":
            count += 1
            new = f"{name}#{count}"
        self._names.add(new)
        return new


def _same_view(one: _View, other: _View) -> bool:
    return one.start == other.start and all(
        one.record[name] == other.record[name] for name in ("dtype", "shape", "stride")
    )


def _bytes_of(tensor: Any, start: int, end: int) -> memoryview:
    """Return the bytes of a tensor's storage; without a copy where it is in main memory."""
    import torch

    if end == start:
        return memoryview(b"")
    flat = torch.empty(0, dtype=torch.uint8, device=tensor.device)
    flat.set_(tensor.untyped_storage(), start, (end - start,), (1,))
    return flat.cpu().numpy().data


def _reach(shape: tuple[int, ...], strides: tuple[int, ...], size: int) -> tuple[int, int]:
    """Return the lowest offset of an array's elements, and how many bytes they span."""
    if 0 in shape:
        return 0, 0
    ends = [(n - 1) * s for n, s in zip(shape, strides, strict=True)]
    low = sum(end for end in ends if end < 0)
    return low, sum(end for end in ends if end > 0) - low + size


def _view_of(
    buffer: Any, dtype: Any, shape: tuple[int, ...], strides: tuple[int, ...], offset: int
) -> Any:
    import numpy as np

    return np.ndarray(shape, dtype, buffer=buffer.data, offset=offset, strides=strides)


# Loading --------------------------------------------------------------------------------------


def allocate(size: int) -> tuple[Any, memoryview]:
    """Return new memory (a torch tensor of bytes, aligned by its allocator) and a view to fill."""
    import torch

    memory = torch.empty(size, dtype=torch.uint8)
    return memory, memory.numpy().data


def tensor_from(record: Mapping[str, Any], memories: Mapping[str, Any]) -> Any:
    """Make the torch tensor of a record upon its block's memory."""
    import torch

    dtype = getattr(torch, record["dtype"])
    if not isinstance(dtype, torch.dtype):
        raise ValueError(f"{record['dtype']!r} is no type of tensors")
    storage = memories[record["block"]].untyped_storage()
    tensor = torch.empty(0, dtype=dtype)
    return tensor.set_(storage, record["offset"], tuple(record["shape"]), tuple(record["stride"]))


def array_from(record: Mapping[str, Any], memories: Mapping[str, Any]) -> Any:
    """Make the numpy array of a record upon its block's memory."""
    import numpy as np

    dtype = np.dtype(record["dtype"])
    if dtype.hasobject:  # its bytes would be pointers
        raise ValueError("an array of objects cannot be loaded")
    memory = memories[record["block"]].numpy()
    shape, strides = tuple(record["shape"]), tuple(record["stride"])
    if 0 in shape:
        return np.lib.stride_tricks.as_strided(np.empty(0, dtype), shape, strides)
    return _view_of(memory, dtype, shape, strides, record["offset"])
