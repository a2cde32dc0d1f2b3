"""Files that are written: whether they can be, found out before any work; and written whole.

A whole file is written beside its place and put there at the end: a crash leaves the old file or
the new one. Errors of the system are messages. Knows nothing of what the files hold.
"""

from __future__ import annotations

import glob
import os
import shutil
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from ostinato.arguments import reason
from ostinato.errors import OutputError

ROOM = 1 << 20
"""Bytes that must be free where an output is written: less is not worth starting for."""


def require_writable(path: Path, what: str, *, or_folder: bool = False) -> None:
    """Raise `OutputError` where a file cannot be written: its place, its rights, no room.

    `or_folder`: a folder there will do, too.
    """
    try:
        problem = _problem_in(path, path) if or_folder and path.is_dir() else _problem(path)
    except (OSError, ValueError) as error:  # a name that is too long, a loop of links, a NUL
        problem = reason(error)
    if problem:
        kind = "a file or folder" if or_folder else "a file"
        refused = OutputError(
            f"{what} must be {kind} that can be written, got {path}: {problem}. Name another place."
        )
        refused.key = what
        raise refused


@contextmanager
def told_when_not_written(mend: str) -> Iterator[None]:
    """Turn what the system says when a file cannot be written into an `OutputError`."""
    try:
        yield
    except OSError as error:
        place = f"{error.filename}" if error.filename else "A file"
        raise OutputError(f"{place} could not be written: {reason(error)}. {mend}") from error


def _problem(path: Path) -> str:
    """Return why a file cannot be written, empty if it can be."""
    if path.is_dir():
        return "it is a folder"
    if path.exists() and not path.is_file():
        return "it is no regular file"
    folder = path.parent
    while not folder.exists():  # missing folders are made
        folder = folder.parent
    if not folder.is_dir():
        return f"{folder} is no folder"
    return _problem_in(folder, path)


def _problem_in(folder: Path, path: Path) -> str:
    # Tried: rights say nothing of a file system that is read-only, or of a name that is too long.
    handle, name = new_part(path, folder)
    os.close(handle)
    os.unlink(name)
    disk = shutil.disk_usage(folder)
    # Some file systems do not tell their size.
    return f"no room is left in {folder}" if disk.total and disk.free < ROOM else ""


# Whole files ------------------------------------------------------------------------------------

ENDING = ".part"

LEFT_SECONDS = 3600.0
"""For how long nobody has written to a part that a killed process has left."""


@dataclass
class Part:
    """A file in the making; `target` is the one that it replaces."""

    file: BinaryIO
    target: Path


@contextmanager
def part_of(target: Path) -> Iterator[Part]:
    """Open a temporary file beside its target, which it replaces at the end, synced and renamed.

    An error leaves nothing of it. Parts of the same target that killed processes have left are
    deleted.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    _delete_left(target)
    handle, name = new_part(target)
    try:
        with os.fdopen(handle, "wb") as file:
            part = Part(file, target)
            yield part
            file.flush()
            # Before the rename: else a power cut can leave an empty file under the new name.
            os.fsync(file.fileno())
        # `mkstemp` makes a file that only its owner can read.
        os.chmod(name, 0o666 & ~_umask())
        os.replace(name, part.target)
    except BaseException:
        os.unlink(name)
        raise


def new_part(target: Path, folder: Path | None = None) -> tuple[int, str]:
    """Create a temporary file, beside its target where no folder is given: handle and name."""
    import tempfile  # every loop imports this module, and few write files

    # Beside it: a rename is atomic only within a file system.
    return tempfile.mkstemp(dir=folder or target.parent, prefix=f".{target.name}.", suffix=ENDING)


def _delete_left(target: Path) -> None:
    pattern = f".{glob.escape(target.name)}.{'?' * 8}{ENDING}"  # as `mkstemp` names them
    for part in target.parent.glob(pattern):
        with suppress(OSError):  # another process may be faster
            if part.stat().st_mtime < time.time() - LEFT_SECONDS:
                part.unlink()


def _umask() -> int:
    mask = os.umask(0)  # it can only be read by setting it
    os.umask(mask)
    return mask


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Open what replaces a file at the end.

    Raises `OutputError` where that fails; an older file is then as it was.
    """
    try:
        with part_of(path) as part:
            yield part.file
    except OSError as error:
        raise OutputError(
            f"{path} must be a file that can be written, got: {reason(error)}. Nothing is lost: "
            "the journal has what was done. Make room or access, and run the same command again."
        ) from error


def write_whole(path: Path, parts: Iterable[str]) -> None:
    """Write a text file as `replacing` does."""
    with replacing(path) as file:
        for part in parts:
            # A model can emit lone surrogates, which UTF-8 cannot encode.
            file.write(part.encode("utf-8", "backslashreplace"))
