"""Tokens of GGUF vocabularies are those of llama.cpp, for every pre-tokenizer that we know."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gguf
import pytest
from chat_families import cached, llama3
from test_chat_tokens import TEXTS
from test_models_gguf_tokenizer import METADATA

from ostinato.models import GGUFModel
from ostinato.models.files.gguf_words import known_names

llama_cpp = pytest.importorskip("llama_cpp").llama_cpp

MORE = [
    "I'LL say: \u201cno\u201d ... 12345 67 (ok)\r\n\r\n  x\n \n",
    "CamelCaseWORDs/paths ok?!  \n\n",
]
# llama.cpp does not compose characters as the tokenizers of these models do.
COMPOSED = ("qwen2", "deepseek-r1-qwen", "qwen35")


def write(path: Path, more: dict[str, Any]) -> Path:
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(1)
    writer.add_embedding_length(8)
    writer.add_head_count(1)
    writer.add_context_length(64)
    writer.add_feed_forward_length(8)
    writer.add_layer_norm_rms_eps(1e-5)
    for key, value in more.items():
        name = f"tokenizer.ggml.{key}"
        if isinstance(value, list):
            writer.add_array(name, value)
        elif isinstance(value, bool):
            writer.add_bool(name, value)
        elif isinstance(value, int):
            writer.add_uint32(name, value)
        elif value is not None:
            writer.add_string(name, value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def byte_level(pre: str | None) -> dict[str, Any]:
    backend = cached(llama3)
    state = json.loads(backend.to_str())["model"]
    tokens = sorted(state["vocab"], key=state["vocab"].get)
    control = {token.content for token in backend.get_added_tokens_decoder().values()}
    return {
        "model": "gpt2",
        "pre": pre,
        "tokens": tokens,
        "token_type": [3 if token in control else 1 for token in tokens],
        "merges": [" ".join(merge) for merge in state["merges"]],
        "bos_token_id": 0,
        "eos_token_id": 1,
    }


class Theirs:
    def __init__(self, path: Path) -> None:
        parameters = llama_cpp.llama_model_default_params()
        parameters.vocab_only = True
        self.model = llama_cpp.llama_model_load_from_file(str(path).encode(), parameters)
        assert self.model
        self.vocab = llama_cpp.llama_model_get_vocab(self.model)

    def encode(self, text: str, special: bool, control: bool) -> list[int]:
        raw = text.encode()
        room = len(raw) + 8
        ids = (llama_cpp.llama_token * room)()
        count = llama_cpp.llama_tokenize(self.vocab, raw, len(raw), ids, room, special, control)
        return list(ids[:count])


@pytest.mark.parametrize("pre", [*known_names(), None])
def test_byte_level_vocabularies(tmp_path: Path, pre: str | None) -> None:
    path = write(tmp_path / "a.gguf", byte_level(pre))
    ours, theirs = GGUFModel(path).tokenizer(), Theirs(path)
    for text in [*TEXTS, *MORE]:
        if pre in COMPOSED and "e\u0301" in text:
            continue
        assert ours.prompt(text) == theirs.encode(text, True, False), text
        assert ours.encode_control(f"{text}<|eot_id|> x") == theirs.encode(
            f"{text}<|eot_id|> x", False, True
        )
    ends = {i for i in range(ours.vocab_size) if llama_cpp.llama_vocab_is_eog(theirs.vocab, i)}
    assert ours.eos_ids == ends


@pytest.mark.parametrize("changes", [{}, {"add_bos_token": False}, {"add_space_prefix": False}])
def test_sentencepiece_vocabularies(tmp_path: Path, changes: dict[str, Any]) -> None:
    path = write(tmp_path / "a.gguf", {**METADATA, "eos_token_id": 2, **changes})
    ours, theirs = GGUFModel(path).tokenizer(), Theirs(path)
    for text in [*TEXTS, *MORE, "there in the rain"]:
        assert ours.prompt(text) == theirs.encode(text, True, False), text
        assert ours.encode_control(f"the</s>{text}") == theirs.encode(f"the</s>{text}", False, True)
