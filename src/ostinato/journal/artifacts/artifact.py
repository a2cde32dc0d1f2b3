"""Artifacts: pictures, sounds and tensors that a run made, stored once by their hash.

JSON refers to one by a mapping of its hash, kind, type and shape. Imports neither torch nor numpy
by itself. Knows no run; `artifact_tables` writes them.
"""

from __future__ import annotations

import json
import math
import sqlite3
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any, Literal

from ostinato.errors import InputError, RunError
from ostinato.journal.artifacts import files as artifact_files
from ostinato.journal.artifacts.coding import (
    array_from,
    channels_of,
    decode_content,
    tensor_from,
)
from ostinato.journal.artifacts.recorded_tensor import (
    bytes_of,
    is_kept_whole,
    name_of_dtype,
    recorded,
    tensor_in,
)
from ostinato.journal.fields import read_json
from ostinato.journal.sqlite.database import Database

LISTED = 256
"""Elements of a tensor that JSON still holds as lists: with more, a picture of 17 x 17."""

HASH_LENGTH = 40  # hexadecimal digits: 160 bits
_MARK = '"artifact":"'  # in every JSON text that refers to an artifact
_NEEDED = frozenset({"artifact", "kind", "dtype", "shape"})

Kind = Literal["image", "sound", "tensor"]


@dataclass(frozen=True, slots=True, eq=False)
class Sound:
    """Samples (N,) or (N, channels) of a report or result, in [-1, 1] or int16; `rate` in 1/s."""

    samples: Any
    rate: int

    def __post_init__(self) -> None:
        shape = getattr(self.samples, "shape", None)
        if shape is None or len(shape) not in (1, 2):
            raise InputError(
                f"The samples of a sound must be a tensor (N,) or (N, channels), got {shape}."
            )
        if isinstance(self.rate, bool) or not isinstance(self.rate, int) or self.rate < 1:
            raise InputError(f"The rate of a sound must be samples a second, got {self.rate!r}.")

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the samples."""
        return tuple(self.samples.shape)

    @property
    def dtype(self) -> Any:
        """The type of the samples."""
        return self.samples.dtype

    def tolist(self) -> Any:
        """Return the samples as lists, as JSON outside a journal holds them."""
        return self.samples.tolist()


class Artifact(dict[str, Any]):
    """A reference as it stands in a report or result; the content is read when it is wanted.

    Two are equal where their hashes are: then their content is, bit for bit.
    """

    __slots__ = ("_database",)

    def __init__(self, reference: Mapping[str, Any], database: Database) -> None:
        super().__init__(reference)
        self._database = database

    def __deepcopy__(self, memo: object) -> Artifact:
        return self  # it never changes, and a database cannot be copied

    def __reduce__(self) -> tuple[type, tuple[dict[str, Any]]]:
        return dict, (dict(self),)

    @property
    def hash(self) -> str:
        """The hash of type, shape and content: 40 hexadecimal digits."""
        return str(self["artifact"])

    @property
    def kind(self) -> Kind:
        """What it can be shown as."""
        kind: Kind = self["kind"]
        return kind

    @property
    def dtype(self) -> str:
        """The name of its elements' type, such as "float32"."""
        return str(self["dtype"])

    @property
    def shape(self) -> tuple[int, ...]:
        """Its shape."""
        return tuple(self["shape"])

    @property
    def rate(self) -> int | None:
        """The samples a second of a sound."""
        return self.get("rate")

    def content(self) -> bytearray:
        """Return the bytes of its elements in order, the lowest byte of each first.

        Raises `RunError` where they are damaged, or gone with the run that was deleted.
        """
        coding, content = _stored(self._database, self.hash)
        try:
            memory = decode_content(coding, content, self.shape)
            if digest(self, memory) != self.hash:
                raise ValueError("its hash is not that of what was written")
        except ValueError as error:
            raise RunError(
                f"The artifact {self.hash} of {self._database.path} is damaged: {error}. Restore "
                "the journal's folder from a copy, or compute the run again."
            ) from None
        return memory

    def tensor(self) -> Any:
        """Return it as a new torch tensor, contiguous. Raises `RunError` as `content` does."""
        tensor = tensor_from(self.content(), self.dtype, self.shape)
        _remember(tensor, dict(self))
        return tensor

    def array(self) -> Any:
        """Return it as a numpy array. Raises `RunError` also for a type that numpy lacks."""
        return array_from(self.content(), self.dtype, self.shape)

    def preview(self, side: int = 96) -> bytes | None:
        """Return a PNG of at most `side` pixels a side; None for what is neither seen nor heard.

        Of a sound it is the envelope of the waveform.
        """
        return artifact_files.preview(self, self.content(), side)

    def save(self, path: str | Path) -> Path:
        """Write it as a file: the path's suffix is .png, .wav or .safetensors, which holds any.

        Raises `InputError` for another suffix or kind, `RunError` where it cannot be written.
        """
        return artifact_files.save(self, self.content(), Path(path))


# References -----------------------------------------------------------------------------------


def reference_to(value: Any) -> dict[str, Any] | None:
    """Return the reference to a tensor, array or sound.

    None or empty for one that JSON holds as lists, or of which it can hold the shape alone.
    """
    if isinstance(value, Sound):
        return _reference(value.samples, value.rate)
    if _fits_lists(value):
        return None
    remembered = _REMEMBERED.get(id(value))
    if remembered is not None and remembered[0]() is value and remembered[1] == _version(value):
        return dict(remembered[2])
    reference = _reference(value, None)
    _remember(value, reference)
    return reference


def _fits_lists(value: Any) -> bool:
    """Whether JSON holds a tensor as lists: it is small, and lists tell its numbers and shape."""
    shape = getattr(value, "shape", ())
    if len(shape) > 1 and 0 in shape:
        return False
    is_complex = len(shape) > 0 and name_of_dtype(value).startswith("complex")
    return math.prod(shape) <= LISTED and not is_complex


def _reference(value: Any, rate: int | None) -> dict[str, Any]:
    shape, dtype = [int(n) for n in value.shape], name_of_dtype(value)
    reference: dict[str, Any] = {"kind": _kind_of(dtype, shape), "dtype": dtype, "shape": shape}
    if rate is not None:
        reference |= {"kind": "sound", "rate": rate}
    memory = bytes_of(value)
    if memory is None:
        return {}
    return {"artifact": digest(reference, memory), **reference}


def _kind_of(dtype: str, shape: list[int]) -> Kind:
    """Guess from type and shape what can be shown: three channels or one, first if they are real.

    Latents have four or more.
    """
    found = channels_of(tuple(shape))
    if found is None:
        return "tensor"
    channels, come_first = found
    seen = dtype == "uint8" or (come_first and channels != 4 and "float" in dtype)
    return "image" if seen else "tensor"


def digest(reference: Mapping[str, Any], memory: memoryview | bytearray) -> str:
    """Return the hash of a tensor: of all that its reference says, and its bytes."""
    names = sorted(name for name in reference if name != "artifact")
    header = json.dumps([[name, reference[name]] for name in names]).encode()
    found = blake2b(header, digest_size=HASH_LENGTH // 2)
    found.update(memory)
    return found.hexdigest()


# Hashes of tensors that are referred to again: a checkpoint refers to the same reports as the one
# before. An entry goes with its tensor.
_REMEMBERED: dict[int, tuple[weakref.ref[Any], int, dict[str, Any]]] = {}


def _remember(value: Any, reference: dict[str, Any]) -> None:
    version = _version(value)
    if version is not None:
        place = id(value)
        forget = weakref.ref(value, lambda _: _REMEMBERED.pop(place, None))
        _REMEMBERED[place] = (forget, version, reference)


def _version(value: Any) -> int | None:
    """Return torch's count of a tensor's changes; None for an array, which has none."""
    try:
        return int(value._version)
    except AttributeError:
        return None
    except RuntimeError:  # made in inference mode: not counted, and a report never changes
        return 0


# JSON -----------------------------------------------------------------------------------------


def as_json(value: Any) -> object:
    """Return what stands in a journal's JSON for a tensor, array or sound: lists or a reference."""
    return reference_to(value) or recorded(value)


def collecting(tensors: list[Any]) -> Callable[[Any], object]:
    """Return what stands in JSON for tensors; those that it refers to are appended to the list."""

    def stand_in(value: Any) -> object:
        reference = reference_to(value)
        if not reference:
            return value.tolist()
        tensors.append(value)
        return reference

    return stand_in


def reader(database: Database) -> Callable[[str], Any]:
    """Return the function that reads JSON of a journal, with `Artifact` for every reference."""

    def hook(value: dict[str, Any]) -> dict[str, Any]:
        return Artifact(value, database) if is_reference(value) else value

    def read(text: str) -> Any:
        # A hook costs each object a call, so texts without artifacts are read without one.
        return read_json(text, hook if isinstance(text, str) and _MARK in text else None)

    return read


def is_reference(value: Mapping[str, Any]) -> bool:
    """Whether a mapping has the form of a reference to an artifact."""
    if not (_NEEDED <= value.keys() <= _NEEDED | {"rate"}):
        return False
    hash = value["artifact"]
    return isinstance(hash, str) and len(hash) == HASH_LENGTH and isinstance(value["shape"], list)


def refers(text: str) -> bool:
    """Whether a JSON text refers to any artifact."""
    return _MARK in text


def is_recorded_tensor(value: object) -> bool:
    """Whether a report's value is a tensor that was kept whole: an artifact, or bytes in JSON."""
    return isinstance(value, Artifact) or is_kept_whole(value)


def tensor_of(value: object) -> Any:
    """Return the torch tensor of a value: one of a journal, lists, or a tensor.

    Lists give torch's usual types. Raises `RunError` where only the shape was recorded, and as
    `Artifact.content` does.
    """
    import torch

    if isinstance(value, Artifact):
        return value.tensor()
    if not isinstance(value, Mapping):
        return torch.as_tensor(value)
    if is_reference(value):
        raise RunError(
            f"The artifact {value['artifact']} must come from a journal to be read. Take the "
            "report from a Run, or read it with Run.artifact(hash)."
        )
    return tensor_in(value)


def with_tensors(value: object) -> Any:
    """Return a value of a journal in which every tensor kept whole is one again.

    A sound becomes a `Sound`; lists stay.
    """
    if isinstance(value, Artifact) and value.rate is not None:
        return Sound(value.tensor(), value.rate)
    if is_recorded_tensor(value):
        return tensor_of(value)
    if isinstance(value, dict):
        return {name: with_tensors(each) for name, each in value.items()}
    return [with_tensors(each) for each in value] if isinstance(value, list) else value


# Content --------------------------------------------------------------------------------------


def folder_of(path: Path) -> Path:
    """Return the folder of a journal's larger artifacts."""
    return path.parent / "artifacts"


def _stored(database: Database, hash: str) -> tuple[str, bytes]:
    """Return the coding and the bytes of an artifact as they are stored."""
    rows = _query(database, "SELECT coding, file, content FROM artifacts WHERE hash = ?", (hash,))
    if not rows:
        raise RunError(
            f"The artifact {hash} is not in {database.path}: the runs that held it were deleted."
        )
    coding, file, content = rows[0]
    if content is not None:
        return coding, content
    # A journal may come from somebody else: a row must not lead out of the folder.
    if Path(file).name != file or file.startswith("."):
        raise RunError(f"An artifact must be a file of the journal's folder, got {file!r}.")
    path = folder_of(database.path) / file
    try:
        return coding, path.read_bytes()
    except OSError as error:
        raise RunError(
            f"The artifact {path} could not be read: {error.strerror}. Restore the journal's "
            "folder from a copy, or compute the run again."
        ) from None


def _query(database: Database, statement: str, values: tuple[object, ...]) -> list[tuple[Any, ...]]:
    try:
        return database.query(statement, values)
    except RunError as error:
        # Results are used after `with Journal() as journal` has closed it: it is opened again.
        if not isinstance(error.__cause__, sqlite3.ProgrammingError):
            raise
    again = Database(database.path)
    try:
        return again.query(statement, values)
    finally:
        again.close()
