"""A hash of a model's weights, so that a run that goes on can tell whether they changed."""

from __future__ import annotations

import hashlib
from pathlib import Path

from ostinato.models.known import KNOWN, LLAMA, shipped_adapters

ENDINGS = (".safetensors", ".gguf", ".json")


def weights_digest(name: str, adapter: str | None = None) -> str:
    """Return a hash of the files that a model and its adapter are read from.

    Empty for names, whose weights are always the same, and for paths that are not there.
    """
    given = [name] if name not in KNOWN else []
    given += [adapter] if adapter and adapter not in shipped_adapters() else []
    found = [_digest(Path(one.removeprefix(LLAMA)).expanduser()) for one in given]
    return "+".join(each for each in found if each)


def _digest(path: Path) -> str:
    """Return a hash of a file, or of what a folder holds: its weights, its shape, its tokens."""
    if path.is_file():
        files = [path]
    elif path.name and path.is_dir():
        files = sorted(each for each in path.iterdir() if each.suffix in ENDINGS)
    else:
        return ""
    whole = hashlib.sha256()
    for each in files:
        with each.open("rb") as opened:
            whole.update(hashlib.file_digest(opened, "sha256").digest())
    return whole.hexdigest()[:16]
