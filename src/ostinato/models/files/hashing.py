"""Hashes of files, stored in the cache folder so that a large file is hashed only once.

Knows no contents: two files with the same bytes are the same.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
import tempfile
import threading
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from ostinato.models.catalog import (
    CATALOG,
    LLAMA,
    cache_root,
    shipped_adapters,
    split_adapter,
    user_path,
)

LARGE = 1 << 20  # bytes: a smaller file is hashed every time, in a few milliseconds
# Nanoseconds. Clocks of file systems are coarse: a file changed more recently could change again
# without a new modification time, so its hash is not stored.
SETTLED = 2_000_000_000
ENDINGS = (".safetensors", ".gguf", ".json", ".jinja", ".txt")  # .txt: vocab.txt, merges.txt
SENTENCEPIECE = ".model"

Stored = dict[str, list[object]]
"""The size, modification time (ns) and hash of each file, by its path."""


def file_hash(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal, stored or computed.

    A stored hash counts while size and modification time are the same.
    """
    state = path.stat()
    if state.st_size < LARGE:
        return _sha256(path)
    name, version = str(path.resolve()), [state.st_size, state.st_mtime_ns]
    stored = _read().get(name, [])
    if stored[:2] == version:
        return str(stored[2])
    digest, after = _sha256(path), path.stat()
    settled = time.time_ns() - state.st_mtime_ns > SETTLED
    if settled and version == [after.st_size, after.st_mtime_ns]:
        _store(name, [*version, digest])
    return digest


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _store_path() -> Path:
    return cache_root() / "hashes.json"


def _read() -> Stored:
    """Return the stored hashes; none where their file is missing or damaged."""
    try:
        value = json.loads(_store_path().read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    entries = value.items() if isinstance(value, Mapping) else ()
    return {name: entry for name, entry in entries if _is_entry(entry)}


def _is_entry(entry: object) -> bool:
    return isinstance(entry, list) and [type(one) for one in entry] == [int, int, str]


def _store(name: str, entry: list[object]) -> None:
    """Store a hash and drop files that are gone; do nothing where the folder is read-only."""
    stored = {other: value for other, value in _read().items() if Path(other).is_file()}
    with suppress(OSError):
        write_atomically(_store_path(), json.dumps({**stored, name: entry}, indent=0))


def write_atomically(path: Path, text: str) -> None:
    """Write a file atomically: another process reads the old contents or the new."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, unfinished = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        os.chmod(unfinished, usual_mode(path.parent))
        os.replace(unfinished, path)
    except BaseException:
        os.unlink(unfinished)
        raise


def usual_mode(folder: Path) -> int:
    """Return the mode of new files in a folder, for one that a library made for its owner only.

    The system decides it, by the umask and the folder's rules. Setting the umask to read it would
    change the files of other threads.
    """
    probe = folder / f".mode-{os.getpid()}-{threading.get_ident()}"
    handle = os.open(probe, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
    try:
        return stat.S_IMODE(os.fstat(handle).st_mode)
    finally:
        os.close(handle)
        os.unlink(probe)


def hash_parts(parts: Iterable[bytes | str]) -> str:
    """Return a hash of the parts in their order, with the borders between them."""
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        content = part.encode("utf-8", "surrogatepass") if isinstance(part, str) else part
        digest.update(len(content).to_bytes(8, "little"))
        digest.update(content)
    return digest.hexdigest()


def weights_digest(name: str, adapter: str | None = None) -> str:
    """Return a hash of the files of a model and its adapter.

    `name` may name an adapter too, as in `load_model`. Empty for names of the catalog, whose
    weights never change, and for paths that do not exist.
    """
    base, plus = split_adapter(name)
    merged = plus or adapter
    paths = [base] if base not in CATALOG else []
    paths += [merged] if merged and merged not in shipped_adapters() else []
    digests = [_digest(user_path(path.removeprefix(LLAMA))) for path in paths]
    return "+".join(filter(None, digests))


def folder_digest(folder: str | Path, parts: Iterable[str] = ("",)) -> str:
    """Return a hash of the weights, configurations and tokenizers in a folder and parts of it.

    `parts` are subfolders, "" the folder itself; those that do not exist count as empty. The hash
    is empty where no file is found.
    """
    folder = Path(folder)
    files = [
        file
        for part in sorted(parts)
        if (folder / part).is_dir()
        for file in sorted((folder / part).iterdir())
        if file.suffix in (*ENDINGS, SENTENCEPIECE) and file.is_file()
    ]
    if not files:
        return ""
    # With their names: two parts that change places are another model.
    return hash_parts(
        text for file in files for text in (file.relative_to(folder).as_posix(), file_hash(file))
    )


def _digest(path: Path) -> str:
    """Return a hash of a file, or of a folder's weights, configuration and tokenizer."""
    if path.is_file():
        files = [path]
    elif path.name and path.is_dir():
        files = sorted(file for file in path.iterdir() if file.suffix in ENDINGS)
    else:
        return ""
    combined = hashlib.sha256()
    for file in files:
        combined.update(bytes.fromhex(file_hash(file)))
    return combined.hexdigest()[:16]
