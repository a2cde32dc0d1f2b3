"""Standard input as the input of a job: kept as a file under its hash, so a resume needs no pipe.

Knows no job and no journal; rows are read later, by `ostinato.row_files`.
"""

from __future__ import annotations

import codecs
import hashlib
import zlib
from pathlib import Path
from typing import BinaryIO

from ostinato.arguments import reason
from ostinato.errors import InputError, OutputError
from ostinato.output_files import part_of

STANDARD_INPUT = Path("-")
"""The input of a job that reads standard input."""

BLOCK = 1 << 18


def keep_input(stream: BinaryIO, folder: Path) -> Path:
    """Copy a stream of rows into a folder, and return the file. The same rows give the same file.

    Its name is the hash of its bytes, and the ending that its first bytes tell: of JSONL, CSV or
    Parquet, also in gzip. Raises `InputError` for an empty stream, `OutputError` where the file
    cannot be written.
    """
    first = stream.read(BLOCK)
    if not first.strip():
        raise InputError(
            "Standard input must hold at least one item, got none. Pipe a file of rows into it."
        )
    try:
        return _copy(first, stream, folder)
    except OSError as error:
        raise OutputError(
            f"{folder} must be a folder that standard input can be kept in, got: {reason(error)}. "
            "Make room or access, or name a file with --input."
        ) from error


def _copy(first: bytes, stream: BinaryIO, folder: Path) -> Path:
    # Messages about its rows name the file, so it says where they come from.
    with part_of(folder / "standard-input") as part:
        digest, block = hashlib.sha256(), first
        while block:
            digest.update(block)
            part.file.write(block)
            block = stream.read(BLOCK)
        name = f"{part.target.name}-{digest.hexdigest()[:16]}{ending_of(first)}"
        part.target = folder / name
    return part.target


def ending_of(first: bytes) -> str:
    """Return the ending for the name of a file of rows that begins with some bytes."""
    if first.startswith(b"\x1f\x8b"):
        try:
            inner = zlib.decompressobj(wbits=31).decompress(first, BLOCK)
        except zlib.error:  # damaged: told when its rows are read
            inner = b"{"
        return ending_of(inner) + ".gz"
    if first.startswith(b"PAR1"):
        return ".parquet"
    for mark in (codecs.BOM_UTF8, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
        first = first.removeprefix(mark)
    # A row of JSONL is an object; a bad row that is a list is told better as JSON.
    return ".jsonl" if first.lstrip(b" \t\r\n\0").startswith((b"{", b"[")) else ".csv"
