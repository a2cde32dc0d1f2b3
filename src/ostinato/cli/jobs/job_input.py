"""Standard input as the input of `ostinato refine`: kept as a file, by which the run resumes."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, BinaryIO

from ostinato.errors import InputError
from ostinato.journal import DEFAULT, Journal

if TYPE_CHECKING:
    from ostinato.refine import Job

FOLDER = "inputs"
"""The folder beside the journal that keeps what came from standard input."""


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
        yield replace(job, input=_kept_by_run(job, journal))
    elif temporary:
        with TemporaryDirectory(prefix="ostinato-") as folder:
            yield replace(job, input=keep_input(stream, Path(folder)))
    else:
        yield replace(job, input=keep_input(stream, journal.absolute().parent / FOLDER))


def _pipe() -> BinaryIO | None:
    """Return standard input; None for a terminal, and where it was closed."""
    return None if sys.stdin is None or sys.stdin.isatty() else sys.stdin.buffer


def _kept_by_run(job: Job, path: Path) -> Path:
    """Return the input that the newest run of a job and its output was given by a pipe."""
    if path.exists():
        with Journal(path) as journal:
            for run in journal.runs():  # newest first
                spec, kept = run.spec, Path(str(run.spec.get("input") or ""))
                same = spec.get("job") == str(job.file) and spec.get("output") == str(job.output)
                if same and run.parent is None and kept.parent.name == FOLDER and kept.is_file():
                    return kept
    raise InputError(
        f"The input of {job.file.name} must come from a pipe or a file, got none. "
        f"Pipe the rows: … | ostinato refine {job.file.name}, or name a file with --input."
    )
