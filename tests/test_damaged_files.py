"""A file that was cut, or whose bits were flipped, gives an error of ours or a value.

No reader trusts a length, a pointer or a number in a file.
"""

from __future__ import annotations

import gzip
import io
import json
import random
import struct
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from refine_scribe import items_of
from tiny import save_tiny
from tiny_gguf import save_tiny_gguf

from ostinato.checks.blocked import read_words
from ostinato.checks.json_schema.check import read_schema
from ostinato.errors import OstinatoError
from ostinato.journal.state.checkpoint import load_state, save_state
from ostinato.media import read_idx, read_pixels
from ostinato.models.files.gguf import GGUFModel
from ostinato.models.files.json_values import read_json
from ostinato.models.load import load_model
from ostinato.music.midi import load_midi, write_midi
from ostinato.music.score import Score, read_chorales
from ostinato.refine import read_job
from ostinato.text_files import read_toml
from ostinato.train.data import read_rows

JOB = """\
input = "in.jsonl"
model = "smollm2"
[prompt]
template = "é {a}"
[[check]]
kind = "length"
max = 9
"""
ROWS = "".join(json.dumps({"a": f"é {n}", "b": [n, 1.5e3, None]}) + "\n" for n in range(8))
SCORE = Score(((72, 67, 60, 48), (74, 67, 59, 43), (72, 67, 60, 48)) * 4)


def image(kind: str, mode: str = "RGB", **settings: Any) -> bytes:
    noise = np.random.default_rng(0).integers(0, 256, (24, 16, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).convert(mode).save(file, kind, **settings)
    return file.getvalue()


def exif() -> Image.Exif:
    found = Image.Exif()
    found[274] = 6
    return found


def idx() -> bytes:
    return b"\0\0\x08\x03" + struct.pack(">3I", 3, 8, 8) + bytes(range(192))


def written(write: Callable[[Path], object]) -> Callable[[Path], bytes]:
    """Return a maker of the bytes that a function writes to a path."""

    def make(folder: Path) -> bytes:
        write(folder / "whole")
        return (folder / "whole").read_bytes()

    return make


def write_parquet(path: Path) -> None:
    columns = {
        "a": ["é", None, "x" * 99] * 9,
        "b": [[n, None] for n in range(27)],
        "c": pa.array(range(27), pa.timestamp("ns")),
        "d": [{"x": 1.5, "y": b"z"}] * 27,
    }
    pq.write_table(pa.table(columns), path, row_group_size=9)


def read_gguf(path: Path) -> object:
    model = GGUFModel(path)
    return model.config(), list(model.weights())


KINDS: dict[str, tuple[str, Callable[[Path], bytes] | bytes, Callable[[Path], object]]] = {
    "png": ("a.png", image("PNG", exif=exif()), read_pixels),
    "png of a palette": ("a.png", image("PNG", "P"), read_pixels),
    "jpeg": ("a.jpg", image("JPEG", exif=exif()), read_pixels),
    "jpeg in CMYK": ("a.jpg", image("JPEG", "CMYK"), read_pixels),
    "gif": ("a.gif", image("GIF", "P"), read_pixels),
    "webp": ("a.webp", image("WEBP"), read_pixels),
    "bmp": ("a.bmp", image("BMP"), read_pixels),
    "tiff": ("a.tif", image("TIFF", exif=exif()), read_pixels),
    "tiff of LZW": ("a.tif", image("TIFF", compression="tiff_lzw"), read_pixels),
    "tiff of 16 bits": ("a.tif", image("TIFF", "I;16"), read_pixels),
    "ppm": ("a.ppm", image("PPM"), read_pixels),
    "idx": ("images", idx(), read_idx),
    "idx in gzip": ("images.gz", gzip.compress(idx()), read_idx),
    "midi": ("a.mid", written(lambda path: write_midi(SCORE, path)), load_midi),
    "chorales": ("a.json", json.dumps({"train": [[[72, 60]] * 9]}).encode(), read_chorales),
    "toml": ("a.toml", JOB.encode(), read_toml),
    "job": ("a.toml", JOB.encode(), read_job),
    "jsonl": ("a.jsonl", ROWS.encode(), items_of),
    "jsonl in gzip": ("a.jsonl.gz", gzip.compress(ROWS.encode()), items_of),
    "parquet": ("a.parquet", written(write_parquet), items_of),
    "csv": ("a.csv", ("a,b\r\n" + '"é, x",1\r\n' * 9).encode("utf-8-sig"), items_of),
    "corpus": (
        "a.jsonl",
        "".join(json.dumps({"text": f"é {n} and more"}) + "\n" for n in range(9)).encode("utf-16"),
        read_rows,
    ),
    "word list": ("a.txt", "# not these\nrefund*\nçà\n".encode(), read_words),
    "schema": ("a.json", b'{"type": "object", "properties": {"a": {"const": 1e5}}}', read_schema),
    "config": ("a.json", b'{"vocab_size": 5, "x": [1, 2, {"y": "\\u00e9"}]}', read_json),
    "checkpoint": (
        "a",
        written(lambda path: save_state(path, {"a": torch.arange(9), "b": ["é", 1.5]})),
        load_state,
    ),
    "gguf": ("a.gguf", lambda folder: save_tiny_gguf(folder, "Q8_0").read_bytes(), read_gguf),
}


def damaged(content: bytes, draw: random.Random) -> bytes:
    """Cut the content, flip some bits, or overwrite some bytes with large or small numbers."""
    if draw.random() < 0.25:
        return content[: draw.randrange(len(content))]
    changed = bytearray(content)
    for _ in range(draw.choice([1, 1, 2, 8])):
        # Headers are short, and what is in them matters most.
        at = draw.randrange(min(len(content), draw.choice([32, 256, len(content)])))
        match draw.randrange(3):
            case 0:
                changed[at] ^= 1 << draw.randrange(8)
            case 1:
                changed[at : at + 4] = draw.choice([b"\xff" * 4, b"\0" * 4, b"\x7f\xff\xff\xff"])
            case _:
                changed[at] = draw.randrange(256)
    return bytes(changed)


def read_damaged(kind: str, folder: Path, times: int) -> tuple[int, int]:
    """Read damaged files of a kind; return how many were refused and how many were read."""
    name, make, read = KINDS[kind]
    content = make if isinstance(make, bytes) else make(folder)
    (folder / "in.jsonl").write_text(ROWS, encoding="utf-8")
    (folder / name).write_bytes(content)
    read(folder / name)  # whole, it is read
    draw, refused = random.Random(kind), 0
    for number in range(times):
        broken = damaged(content, draw)
        (folder / name).write_bytes(broken)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                read(folder / name)
        except OstinatoError as error:
            refused += 1
            told = str(error)
            assert name.partition(".")[0] in told and "\n" not in told.split("problems:")[0], told
        except Exception as error:
            raise AssertionError(
                f"damage {number} gives {type(error).__name__}: {error}"
            ) from error
    return refused, times - refused


@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_file_gives_an_error_of_ours_or_a_value(kind: str, tmp_path: Path) -> None:
    refused, _ = read_damaged(kind, tmp_path, 24)
    assert refused


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_many_damaged_files_give_errors_of_ours_or_values(kind: str, tmp_path: Path) -> None:
    read_damaged(kind, tmp_path, 300)


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "config.json"])
def test_a_model_with_a_damaged_file_is_refused_or_loaded(name: str, tmp_path: Path) -> None:
    path = save_tiny(tmp_path / "tiny") / name
    content, draw = path.read_bytes(), random.Random(name)
    for _ in range(12):
        path.write_bytes(damaged(content, draw))
        try:
            load_model(path.parent, dtype=torch.float32)
        except OstinatoError as error:
            assert "tiny" in str(error)
