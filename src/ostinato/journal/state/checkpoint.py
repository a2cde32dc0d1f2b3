"""Saves a process's state in one safetensors file, and loads it back exactly.

Tensors and arrays keep value, type, shape and stride, and those that share memory share it again;
everything else is JSON in the file's metadata. Nothing is ever unpickled. A loaded tensor owns
memory that is aligned as the allocator aligns it, never a mapped file: the bits of a product can
depend on the alignment.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import Any

from ostinato.errors import RunError
from ostinato.journal.artifacts.artifact import Artifact
from ostinato.journal.state.codec import REFERENCE, Packer, unpack
from ostinato.journal.state.tensor_blocks import TensorBlock, TensorBlocks, allocate

KEY = "ostinato.state"
CHUNK = 1 << 24  # bytes read at once


@dataclass(frozen=True, slots=True)
class Saved:
    """The size of a file, in bytes, and the CRC-32 of its content."""

    bytes: int
    crc: int


def save_state(
    path: str | Path, state: Mapping[str, object], *, artifacts: list[Any] | None = None
) -> Saved:
    """Write a state, so that the file is whole and on the disk, or not there at all.

    With a list, the file only refers to the larger tensors of each `Unchanging` part; they are
    appended to the list, for the caller to store as artifacts.
    Raises `InputError` with the path of a value that cannot be saved, `RunError` where the file
    cannot be written.
    """
    path = Path(path)
    blocks = TensorBlocks()
    tree = Packer(blocks, artifacts).pack(state, "state")
    packed = blocks.finish()
    header = _header(packed, json.dumps(tree, separators=(",", ":"), allow_nan=False))
    # With the process id: a killed driver and its successor do not write into one file. The next
    # session sweeps what is left.
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        saved = _write(temporary, header, packed)
        os.replace(temporary, path)
        sync_folder(path.parent)
    except OSError as error:
        raise RunError(
            f"The checkpoint {path} could not be written: {error.strerror}. The one before it "
            "is still there; make room, and resume the run."
        ) from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
    return saved


def _header(blocks: list[TensorBlock], tree: str) -> bytes:
    """Build a safetensors header: 8 bytes of length, then JSON padded to a multiple of 8."""
    entries: dict[str, object] = {"__metadata__": {KEY: tree, "format": "pt"}}
    offset = 0
    for block in blocks:
        end = offset + block.bytes
        entries[block.name] = {
            "dtype": block.code,
            "shape": block.shape,
            "data_offsets": [offset, end],
        }
        offset = end
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _write(path: Path, header: bytes, blocks: list[TensorBlock]) -> Saved:
    size = crc = 0
    with path.open("wb") as file:
        pieces: list[bytes | memoryview] = [header, *(block.memory for block in blocks)]
        for piece in pieces:
            file.write(piece)
            crc = zlib.crc32(piece, crc)
            size += len(piece)
        file.flush()
        os.fsync(file.fileno())
    return Saved(size, crc)


def sync_folder(folder: Path) -> None:
    """Sync a folder: a rename is on the disk only when its folder is."""
    if os.name == "nt":  # Windows opens no folder, and its file systems log renames
        return
    file = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def load_state(
    path: str | Path,
    *,
    crc: int | None = None,
    artifact: Callable[[str], Artifact] | None = None,
) -> dict[str, Any]:
    """Read a state back, exactly; `artifact` returns those that it refers to, by hash.

    Raises `RunError` for a file that is damaged or is none.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            return _read(file, crc, artifact)
    except FileNotFoundError:
        raise RunError(f"The checkpoint {path} is not there.") from None
    except (ValueError, KeyError, TypeError, IndexError, RuntimeError) as error:
        raise RunError(f"The checkpoint {path} is damaged: {error}.") from error


def artifacts_in(path: Path) -> set[str]:
    """Return the hashes of the artifacts that a checkpoint refers to.

    Raises `RunError` for a file that is damaged or not there.
    """
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(min(length, os.fstat(file.fileno()).st_size)))
        return set(REFERENCE.findall(header["__metadata__"][KEY]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(f"The checkpoint {path} is damaged: {error}.") from None


def _read(
    file: BufferedReader, crc: int | None, artifact: Callable[[str], Artifact] | None
) -> dict[str, Any]:
    size = os.fstat(file.fileno()).st_size
    length = file.read(8)
    header_size = int.from_bytes(length, "little")
    if header_size > size - 8:  # also a damaged number, which could demand all memory
        raise ValueError("it is too short")
    text = file.read(header_size)
    found = zlib.crc32(text, zlib.crc32(length))
    header = json.loads(text)
    tree = json.loads(header.pop("__metadata__")[KEY])
    memories: dict[str, Any] = {}
    for name, start, end in _in_order(header, size - 8 - header_size):
        memory, view = allocate(end - start)
        found = _fill(file, view, found)
        memories[name] = memory
    if crc is not None and crc != found:
        raise ValueError("its checksum is not that of the file that was written")
    state = unpack(tree, memories, artifact)
    if not isinstance(state, dict):
        raise ValueError("it holds no mapping")
    return state


def _in_order(header: Mapping[str, Any], room: int) -> Iterator[tuple[str, int, int]]:
    """Yield the blocks as they lie in the file. Raises `ValueError` where they leave a gap."""
    spans = sorted((*entry["data_offsets"], name) for name, entry in header.items())
    at = 0
    for start, end, name in spans:
        if start != at or end < start:
            raise ValueError("its blocks do not follow each other")
        at = end
        yield name, start, end
    if at != room:
        raise ValueError(f"it must hold {at} bytes of tensors, got {room}")


def _fill(file: BufferedReader, view: memoryview, crc: int) -> int:
    at = 0
    while at < len(view):
        piece = view[at : at + CHUNK]
        count = file.readinto(piece)
        if not count:
            raise ValueError("it ends too soon")
        crc = zlib.crc32(piece[:count], crc)
        at += count
    return crc
