"""What is saved can be read by whom the umask says, whatever a library makes its files with."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tiny import tiny_model

import ostinato
from ostinato.image.tokens import VQ, VQConfig
from ostinato.journal import Journal, save_state
from ostinato.media import image_io
from ostinato.models import GRU, GRUConfig, Llama, add_lora, save_adapter, write_atomically
from ostinato.train import save_model

pytestmark = pytest.mark.skipif(os.name == "nt", reason="Windows has no modes")


def model(folder: Path) -> None:
    save_model(folder / "model", tiny_model().llama(), tiny_model().tokenizer)


def gru(folder: Path) -> None:
    network = GRU(GRUConfig(vocab_size=400, hidden_size=8, num_hidden_layers=1), seed=0)
    save_model(folder / "gru", network, tiny_model().tokenizer)


def adapter(folder: Path) -> None:
    save_adapter(add_lora(Llama(tiny_model().llama().config, seed=0), 2), folder, base="tiny")


def codes(folder: Path) -> None:
    VQ(VQConfig.for_images(1, 8), seed=0).save(folder)


def run(folder: Path) -> None:
    with Journal(folder / "journal.db") as journal:
        journal.create("a", kind="test")


def image(folder: Path) -> None:
    image_io.save(torch.zeros(1, 4, 4), folder / "image.png", side=8)


WRITERS: list[Callable[[Path], object]] = [
    *(model, gru, adapter, codes, run, image),
    lambda folder: write_atomically(folder / "fact.json", "{}"),
    lambda folder: save_state(folder / "state.safetensors", {"a": 1}),
]


@pytest.mark.parametrize("umask", [0o022, 0o027])
@pytest.mark.parametrize("write", WRITERS)
def test_saved_files_have_the_mode_of_the_umask(
    tmp_path: Path, umask: int, write: Callable[[Path], object]
) -> None:
    before = os.umask(umask)
    try:
        write(tmp_path)
    finally:
        os.umask(before)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in files}
    assert modes and set(modes.values()) == {0o666 & ~umask}, modes


def test_one_function_writes_safetensors() -> None:
    source = Path(ostinato.__file__).parent
    calls = [p.name for p in source.rglob("*.py") if re.search(r"\bsave_file\(", p.read_text())]
    assert calls == ["checkpoint_io.py"]
