"""The hash of a file, kept in the cache folder so that a large one is hashed once only."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from ostinato.models.catalog import CATALOG, LLAMA, cache_root, shipped_adapters, split_adapter

LARGE = 1 << 20  # bytes: a smaller file is hashed anew, it takes a few milliseconds
SETTLED = 2_000_000_000  # nanoseconds: a younger file may change again at the same time of change

Kept = dict[str, list[object]]
"""The size, time of change (ns) and hash of each file, by its path."""


def file_hash(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal; a kept one where size and time are the same."""
    state = path.stat()
    if state.st_size < LARGE:
        return _hashed(path)
    name, seen = str(path.resolve()), [state.st_size, state.st_mtime_ns]
    kept = _read().get(name, [])
    if kept[:2] == seen:
        return str(kept[2])
    made, after = _hashed(path), path.stat()
    settled = time.time_ns() - state.st_mtime_ns > SETTLED
    if settled and seen == [after.st_size, after.st_mtime_ns]:
        _keep(name, [*seen, made])
    return made


def _hashed(path: Path) -> str:
    with path.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _place() -> Path:
    return cache_root() / "hashes.json"


def _read() -> Kept:
    """Return what is kept; nothing where the file is missing or damaged."""
    try:
        value = json.loads(_place().read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    entries = value.items() if isinstance(value, Mapping) else ()
    return {name: entry for name, entry in entries if _is_whole(entry)}


def _is_whole(entry: object) -> bool:
    return isinstance(entry, list) and [type(one) for one in entry] == [int, int, str]


def _keep(name: str, entry: list[object]) -> None:
    """Keep a hash, and forget files that are gone; where nothing can be written, do without."""
    kept = {other: value for other, value in _read().items() if Path(other).is_file()}
    with suppress(OSError):
        _write(_place(), json.dumps({**kept, name: entry}, indent=0))


def _write(place: Path, text: str) -> None:
    """Write a file whole or not at all, also beside another process."""
    place.parent.mkdir(parents=True, exist_ok=True)
    handle, unfinished = tempfile.mkstemp(dir=place.parent, prefix=f".{place.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        os.replace(unfinished, place)
    except BaseException:
        os.unlink(unfinished)
        raise


ENDINGS = (".safetensors", ".gguf", ".json", ".jinja", ".txt")  # vocab.txt: what tokens are


def weights_digest(name: str, adapter: str | None = None) -> str:
    """Return a hash of the files that a model and its adapter are read from.

    `name` may name an adapter too, as in `load_model`. Empty for names, whose weights are always
    the same, and for paths that are not there.
    """
    base, plus = split_adapter(name)
    merged = plus or adapter
    given = [base] if base not in CATALOG else []
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
