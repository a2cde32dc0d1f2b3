"""A byte order mark, which editors and spreadsheets write, changes nothing that is read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from refine_scribe import items_of
from tiny import save_tiny

from ostinato.checks.blocked import read_words
from ostinato.checks.json_schema.check import read_schema
from ostinato.image.clip import load_clip
from ostinato.image.pipelines import load_pipeline
from ostinato.models import load_model
from ostinato.refine import read_job
from ostinato.refine.job.job_items import read_items
from ostinato.text_files import read_text
from ostinato.train.data import read_rows

MARK = b"\xef\xbb\xbf"
JOB = 'input = "in.jsonl"\nmodel = "smollm2"\n[prompt]\ntemplate = "{a}"\n'
JOB += '[[check]]\nkind = "blocked"\nfile = "words.txt"\n'
FILES = {
    "in.jsonl": '{"a": "é"}\n',
    "rows.jsonl": '{"text": "é"}\n',
    "in.csv": "a,b\né,2\n",
    "words.txt": "refund\nçà\n",
    "schema.json": '{"type": "object"}',
    "job.toml": JOB,
    "corpus.txt": "é\n",
}


def mark(folder: Path) -> Path:
    """Put a mark before every text in a folder."""
    for path in folder.rglob("*"):
        if path.suffix in (".json", ".jsonl", ".jinja", ".txt", ".toml", ".csv"):
            path.write_bytes(MARK + path.read_bytes())
    return folder


@pytest.mark.parametrize(
    "read",
    [
        lambda folder: items_of(folder / "in.jsonl"),
        lambda folder: items_of(folder / "in.csv"),
        lambda folder: read_rows(folder / "rows.jsonl"),
        lambda folder: read_words(folder / "words.txt"),
        lambda folder: read_schema(folder / "schema.json"),
        lambda folder: read_text(folder / "corpus.txt"),
        lambda folder: read_job(folder / "job.toml").checks,
        lambda folder: read_items(read_job(folder / "job.toml")),
    ],
)
def test_a_file_with_a_mark_holds_what_it_holds_without(
    read: Callable[[Path], object], tmp_path: Path
) -> None:
    for name, text in FILES.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    assert read(tmp_path) == read(mark(tmp_path))


def test_a_model_s_files_may_have_marks(tmp_path: Path) -> None:
    folder = save_tiny(tmp_path / "tiny")
    (folder / "chat_template.jinja").write_text("{{ messages[0].content }}!")
    messages = [{"role": "user", "content": "Hi"}]
    tokens = load_model(folder, dtype=torch.float32).tokenizer.chat(messages)
    model = load_model(mark(folder), dtype=torch.float32)
    assert model.tokenizer.chat(messages) == tokens
    assert model.tokenizer.decode(tokens) == "Hi!"


@pytest.mark.slow
def test_libraries_that_refuse_a_mark_read_a_folder_without(tmp_path: Path) -> None:
    pytest.importorskip("diffusers")
    pytest.importorskip("transformers")
    from test_models_transformers import write
    from tiny_clip import tiny_clip
    from tiny_pipelines import unconditional

    for name, make, load in (
        ("neox", lambda folder: write("neox", folder), load_model),
        ("clip", tiny_clip, load_clip),
        ("pipeline", unconditional, load_pipeline),
    ):
        folder = make(tmp_path / name)
        before = sorted(path.name for path in folder.rglob("*"))
        load(mark(folder))
        assert sorted(path.name for path in folder.rglob("*")) == before
