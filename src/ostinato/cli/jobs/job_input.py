"""Standard input as the input of `ostinato refine`: kept as a file, by which the run resumes."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, BinaryIO

from ostinato.errors import InputError
from ostinato.journal import DEFAULT, Journal, Run
from ostinato.runs import CONFIG

if TYPE_CHECKING:
    from ostinato.refine import Job

FOLDER = "inputs"
"""The folder beside the journal with what came from standard input, in a folder per journal."""

UNUSED_SECONDS = 24 * 3600.0
"""How long such a file is kept that no run uses."""


@contextmanager
def input_kept(job: Job, journal: Path | None, *, temporary: bool) -> Iterator[Job]:
    """Yield the job with standard input kept as a file; a job with an input file is as it is.

    `temporary`: the file is deleted at the end, and nothing is left beside the journal. On a
    terminal the input is that of the newest run of the job and its output.
    """
    from ostinato.refine import STANDARD_INPUT, keep_input

    if job.input != STANDARD_INPUT:
        yield job
        return
    journal = journal or DEFAULT
    stream = _pipe()
    if stream is None:
        yield _of_file(job, _kept_by_run(job, journal))
    elif temporary:
        with TemporaryDirectory(prefix="ostinato-") as folder:
            yield replace(job, input=keep_input(stream, Path(folder)))
    else:
        kept = keep_input(stream, _folder(journal))
        try:
            yield _of_file(job, kept)
        finally:
            _forget_unused(journal, kept)


def _of_file(job: Job, file: Path) -> Job:
    return replace(job, input=file, choices=replace(job.choices, input=file))


def _pipe() -> BinaryIO | None:
    """Return standard input; None for a terminal, and where it was closed."""
    return None if sys.stdin is None or sys.stdin.isatty() else sys.stdin.buffer


def _forget_unused(path: Path, kept: Path) -> None:
    """Delete the kept input of a job that was refused, and old ones of runs that were deleted."""
    used: set[str] = set()
    if path.exists():
        with Journal(path) as journal:
            used = {_input_name(run) for run in journal.runs()}
    for other in kept.parent.iterdir():
        # Another process may have kept a file, and not yet made its run.
        is_old = other.stat().st_mtime < time.time() - UNUSED_SECONDS
        if other.name not in used and (other == kept or is_old):
            other.unlink(missing_ok=True)
    with suppress(OSError):  # something is in it, at the latest the journal
        for folder in kept.parents[:3]:
            folder.rmdir()


def _kept_by_run(job: Job, path: Path) -> Path:
    """Return the input that the newest run of a job and its output was given by a pipe."""
    from ostinato.refine import job_place

    if path.exists():
        with Journal(path) as journal:
            for run in journal.runs():  # newest first
                place, kept = job_place(run), _folder(path) / _input_name(run)
                named = [path.resolve() for path in place[:2]] if place is not None else []
                same = named == [job.file.resolve(), job.output.resolve()]
                if same and run.parent is None and kept.is_file():
                    return kept
    raise InputError(
        f"The input of {job.file.name} must come from a pipe or a file, got none. "
        f"Pipe the rows: … | ostinato refine {job.file.name}, or name a file with --input."
    )


def _folder(journal: Path) -> Path:
    return journal.absolute().parent / FOLDER / journal.stem


def _input_name(run: Run) -> str:
    config: Any = run.spec.get(CONFIG)
    choices = config.get("choices") if isinstance(config, dict) else None
    # Only the name: the folder may have been moved since, with its journal.
    return Path(str((choices or {}).get("input") or "none")).name
