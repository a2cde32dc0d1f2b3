"""Whether a job can work on this machine, before any work: files, libraries, models, keys.

Loads no model, sends nothing.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

from ostinato.arguments import reason
from ostinato.errors import InputError, MissingExtra, OstinatoError, OutputError
from ostinato.models import LLAMA, adapter_folder, require_model
from ostinato.refine.job.config import Job
from ostinato.refine.whole_files import new_part

ROOM = 1 << 20
"""Bytes that must be free where the output is written: less is not worth starting for."""


def require_ready(job: Job) -> None:
    """Raise `OstinatoError` for the first thing that the job needs and this machine lacks."""
    for path, what in ((job.output, "The output"), (job.report, "The report")):
        require_writable(path, what)
    if job.strategy.masks and find_spec("llguidance") is None:
        raise MissingExtra(f"The strategy {job.strategy.kind!r}", "constrain")
    if job.server is not None:
        job.server.require_available()
    else:
        _require_weights(job)
    if job.cases is not None and job.cases.by != "words":
        with _about("[cases] encoder"):
            require_model(job.cases.encoder, write=False)
    for check in job.checks:
        with _about(f"The check '{check.name}' cannot judge"):
            check.require_available()


def _require_weights(job: Job) -> None:
    if job.model.startswith(LLAMA) and find_spec("llama_cpp") is None:
        raise MissingExtra("A GGUF file through llama.cpp", "llama")
    require_model(job.model)
    if job.adapter:
        adapter_folder(job.adapter)


@contextmanager
def _about(what: str) -> Iterator[None]:
    try:
        yield
    except OstinatoError as error:
        raise InputError(f"{what}: {error}") from error


def require_writable(path: Path, what: str) -> None:
    """Raise `OutputError` where a file cannot be written: its place, its rights, no room."""
    try:
        problem = _problem(path)
    except OSError as error:  # a name that is too long, a loop of links
        problem = reason(error)
    if problem:
        raise OutputError(
            f"{what} must be a file that can be written, got {path}: {problem}. Name another place."
        )


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
    # Tried: rights say nothing of a file system that is read-only, or of a name that is too long.
    handle, name = new_part(path, folder)
    os.close(handle)
    os.unlink(name)
    disk = shutil.disk_usage(folder)
    # Some file systems do not tell their size.
    return f"no room is left in {folder}" if disk.total and disk.free < ROOM else ""
