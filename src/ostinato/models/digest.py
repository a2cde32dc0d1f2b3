"""A hash of a model's weights, so that a run that goes on can tell whether they changed."""

from __future__ import annotations

import hashlib
from pathlib import Path

from ostinato.models.file_hash import file_hash
from ostinato.models.known import KNOWN, LLAMA, shipped_adapters, split_adapter

ENDINGS = (".safetensors", ".gguf", ".json", ".jinja", ".txt")  # vocab.txt: what tokens are


def weights_digest(name: str, adapter: str | None = None) -> str:
    """Return a hash of the files that a model and its adapter are read from.

    `name` may name an adapter too, as in `load_model`. Empty for names, whose weights are always
    the same, and for paths that are not there.
    """
    base, plus = split_adapter(name)
    merged = plus or adapter
    given = [base] if base not in KNOWN else []
    given += [merged] if merged and merged not in shipped_adapters() else []
    found = [_digest(Path(one.removeprefix(LLAMA)).expanduser()) for one in given]
    return "+".join(each for each in found if each)


def _digest(path: Path) -> str:
    """Return a hash of a file, or of what a folder holds: weights, shape, tokens, template."""
    if path.is_file():
        files = [path]
    elif path.name and path.is_dir():
        files = sorted(each for each in path.iterdir() if each.suffix in ENDINGS)
    else:
        return ""
    whole = hashlib.sha256()
    for each in files:
        whole.update(bytes.fromhex(file_hash(each)))
    return whole.hexdigest()[:16]
