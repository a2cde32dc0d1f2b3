"""Whether a job can work on this machine, before any work: files, libraries, models, keys.

Loads no model, sends nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec

from ostinato.errors import InputError, MissingExtra, OstinatoError
from ostinato.models import LLAMA, adapter_folder, require_model
from ostinato.output_files import require_writable
from ostinato.refine.job.config import Job


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
