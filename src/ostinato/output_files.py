"""Whether a file can be written, found out before any work; and errors of writing as messages."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

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
    handle, name = tempfile.mkstemp(dir=folder, prefix=f".{path.name}.")
    os.close(handle)
    os.unlink(name)
    disk = shutil.disk_usage(folder)
    # Some file systems do not tell their size.
    return f"no room is left in {folder}" if disk.total and disk.free < ROOM else ""
