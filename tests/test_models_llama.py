"""The network is `LlamaForCausalLM`'s: same names, same logits, from any file it comes in."""

from __future__ import annotations

import json
import shutil
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import gguf
import pytest
import torch
from safetensors.torch import load_file, save_file
from test_models_tokenizer import tiny
from tiny_gguf import write_gguf

from ostinato.errors import ModelError
from ostinato.models import Llama, LlamaConfig, load_model

TOKENS = torch.randint(0, 340, (2, 50), generator=torch.Generator().manual_seed(1))
SIZES = {
    "vocab_size": 340,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "initializer_range": 0.2,
}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 500.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}


def transformers_folder(folder: Path, shard: str = "1GB", **config: Any) -> tuple[Path, Any]:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**{**SIZES, **config})).eval()
    model.save_pretrained(folder, max_shard_size=shard)
    tiny().save(str(folder / "tokenizer.json"))
    return folder, model


def logits(model: Llama) -> torch.Tensor:
    with torch.no_grad():
        return model.logits(model(TOKENS))


@pytest.mark.parametrize(
    "config",
    [
        {"tie_word_embeddings": True},
        {"num_key_value_heads": 4, "rope_parameters": {"rope_theta": 777.0}},
        {"num_key_value_heads": 1, "attention_bias": True, "mlp_bias": True, "head_dim": 24},
        {"rope_parameters": LLAMA3},
        {"rope_parameters": {"rope_type": "linear", "rope_theta": 500.0, "factor": 2.0}},
    ],
    ids=["tied", "ungrouped", "biases", "llama3", "linear"],
)
def test_logits_are_those_of_transformers(tmp_path: Path, config: dict[str, Any]) -> None:
    folder, theirs = transformers_folder(tmp_path, **config)
    ours = load_model(folder, dtype=torch.float32)
    with torch.no_grad():
        expected = theirs(TOKENS).logits
    torch.testing.assert_close(logits(ours.llama()), expected, rtol=1e-5, atol=1e-5)
    assert set(ours.network.state_dict()) == set(theirs.state_dict())


def test_sharded_files_give_the_same_model(tmp_path: Path) -> None:
    whole, _ = transformers_folder(tmp_path / "whole")
    sharded, _ = transformers_folder(tmp_path / "sharded", shard="100KB")
    assert len(list(sharded.glob("*.safetensors"))) > 2
    a, b = (load_model(f, dtype=torch.float32).llama() for f in (whole, sharded))
    assert torch.equal(logits(a), logits(b))


def test_transformers_loads_our_configuration(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    config = LlamaConfig.from_dict({**SIZES, "rope_scaling": LLAMA3, "rope_theta": 500.0})
    (tmp_path / "config.json").write_text(json.dumps(config.to_dict()))
    theirs = transformers.LlamaConfig.from_pretrained(tmp_path)
    assert theirs.rope_parameters["rope_type"] == "llama3"
    assert theirs.rope_parameters["rope_theta"] == 500.0
    assert LlamaConfig.from_dict(theirs.to_dict()).rope_theta == 500.0
    assert LlamaConfig.from_dict(config.to_dict()) == config


def tiny_network(tied: bool) -> Llama:
    return Llama(LlamaConfig.from_dict({**SIZES, "tie_word_embeddings": tied}), seed=3)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize(
    ("kind", "near"), [("F32", 1e-5), ("F16", 0.02), ("BF16", 0.2), ("Q8_0", 0.2), ("Q4_1", 4.0)]
)
def test_a_gguf_file_gives_the_same_network(
    tmp_path: Path, kind: str, near: float, tied: bool
) -> None:
    model = tiny_network(tied)
    write_gguf(tmp_path / "tiny.gguf", model, gguf.GGMLQuantizationType[kind])
    loaded = load_model(tmp_path / "tiny.gguf", dtype=torch.float32)
    assert loaded.llama().config.tie_word_embeddings == tied
    difference = (logits(loaded.llama()) - logits(model)).abs().mean()
    assert difference < near


def test_a_gguf_file_holds_the_tokenizer_too(tmp_path: Path) -> None:
    write_gguf(tmp_path / "tiny.gguf", tiny_network(True), gguf.GGMLQuantizationType.F32)
    tokenizer = load_model(tmp_path / "tiny.gguf").tokenizer
    text = "The train at 10:45 <|im_end|> Łódź"
    plain = tiny()
    plain.encode_special_tokens = True
    assert tokenizer.encode(text) == plain.encode(text).ids
    assert tokenizer.eos_ids == {0, 2}  # <|endoftext|> by its spelling
    talk = [{"role": "user", "content": "hi"}]
    assert tokenizer.chat_text(talk).endswith("hi<|im_end|>\n<|im_start|>assistant\n")


def test_another_architecture_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "tiny.gguf"
    write_gguf(path, tiny_network(True), gguf.GGMLQuantizationType.F32, arch="gemma")
    with pytest.raises(ModelError, match="one of gpt2, llama, qwen2, qwen3, got 'gemma'"):
        load_model(path)
    with pytest.raises(
        ModelError, match=r"model_type must be one of .*mistral, qwen2, qwen3, got 'bert'"
    ):
        LlamaConfig.from_dict({"model_type": "bert"})
    with pytest.raises(ModelError, match="rope_type must be one of default, linear, llama3"):
        LlamaConfig.from_dict({**SIZES, "rope_scaling": {"type": "yarn", "factor": 2}})


def test_a_broken_file_is_a_sentence(tmp_path: Path) -> None:
    path = tmp_path / "broken.gguf"
    path.write_bytes(b"GGUF" + bytes(40))
    with pytest.raises(ModelError, match="must be a whole GGUF file"):
        load_model(path)


def test_a_folder_that_lacks_something_is_refused_by_name(tmp_path: Path) -> None:
    folder, _ = transformers_folder(tmp_path)
    weights = folder / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ModelError, match=r"model\.safetensors must be a whole safetensors file"):
        load_model(folder)
    weights.unlink()
    with pytest.raises(
        ModelError, match=r"must hold model\.safetensors, or parts with .*, got none"
    ):
        load_model(folder)
    (folder / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(ModelError, match=r"config\.json must have 'num_attention_heads'"):
        load_model(folder)
    with pytest.raises(ModelError, match=r"a folder or a GGUF.*Did you mean 'smollm2'\?"):
        load_model("smolm2")


def test_weights_of_another_shape_are_refused(tmp_path: Path) -> None:
    folder, _ = transformers_folder(tmp_path)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 3}))
    with pytest.raises(ModelError, match=r"must hold 'model\.layers\.2\..*missing"):
        load_model(folder)
    (folder / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 1}))
    with pytest.raises(ModelError, match=r"got 'model\.layers\.1\..*too"):
        load_model(folder)
    (folder / "config.json").write_text(json.dumps({**config, "intermediate_size": 97}))
    with pytest.raises(ModelError, match="must have the shape of config"):
        load_model(folder)


def test_an_index_cannot_lead_out_of_its_folder(tmp_path: Path) -> None:
    folder, _ = transformers_folder(tmp_path, shard="100KB")
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "../elsewhere.safetensors"}}))
    with pytest.raises(ModelError, match="must name files beside it"):
        load_model(folder)


@pytest.mark.parametrize("family", ["llama", "qwen3", "qwen2", "mistral"])
def test_a_shape_from_scratch_survives_its_file(family: str) -> None:
    config = LlamaConfig.from_scratch(
        vocab_size=50, width=64, layers=2, heads=4, context=32, model_type=family, eos_token_id=3
    )
    assert (config.intermediate_size, config.head_dim, config.eos_token_id) == (192, 16, (3,))
    assert LlamaConfig.from_dict(config.to_dict()) == config
    assert Llama(config, seed=1)(torch.zeros(1, 5, dtype=torch.long)).shape == (1, 5, 64)


def test_an_odd_head_is_refused() -> None:
    with pytest.raises(ModelError, match=r"head_dim must be even, got 3\. Rotary positions"):
        LlamaConfig.from_scratch(vocab_size=50, width=12, layers=1, heads=4, context=32)


def test_the_weights_that_transformers_takes_are_read_and_told(tmp_path: Path) -> None:
    folder, theirs = transformers_folder(tmp_path, shard="100KB")
    with torch.no_grad():
        theirs.model.norm.weight += 1
    whole = tmp_path / "whole"
    theirs.save_pretrained(whole)
    shutil.copy(whole / "model.safetensors", folder)
    with pytest.warns(UserWarning, match=r"both model\.safetensors and .*: model\.safetensors is"):
        found = load_model(folder, dtype=torch.float32)
    again = type(theirs).from_pretrained(folder)
    norm = found.llama().model.norm.weight
    assert torch.equal(norm, again.model.norm.weight)
    assert torch.equal(norm, theirs.model.norm.weight)


@pytest.mark.parametrize("name", ["model.fp16.safetensors", "consolidated.safetensors", "a.gguf"])
def test_weights_under_another_name_are_named(tmp_path: Path, name: str) -> None:
    folder, _ = transformers_folder(tmp_path)
    (folder / "model.safetensors").rename(folder / name)
    with pytest.raises(ModelError, match=f"got {name}. Rename"):
        load_model(folder)
    config = json.loads((folder / "config.json").read_text())
    if name.endswith("safetensors"):
        (folder / "config.json").write_text(json.dumps({**config, "transformers_weights": name}))
        load_model(folder)


@pytest.mark.parametrize("kept", ["both, alike", "both", "head", "embedding"])
def test_embedding_and_head_are_one_where_the_file_has_one(tmp_path: Path, kept: str) -> None:
    transformers = pytest.importorskip("transformers")
    folder, _ = transformers_folder(tmp_path, tie_word_embeddings=True)
    path = folder / "model.safetensors"
    weights = load_file(path)
    embedding = weights.pop("model.embed_tokens.weight")
    weights.pop("lm_head.weight", None)
    head = embedding.flip(0) if kept == "both" else embedding.clone()
    weights |= {} if kept == "embedding" else {"lm_head.weight": head}
    weights |= {} if kept == "head" else {"model.embed_tokens.weight": embedding}
    save_file(weights, path, metadata={"format": "pt"})
    with pytest.warns(UserWarning, match="both are used") if kept == "both" else nullcontext():
        model = load_model(folder, dtype=torch.float32)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    with torch.no_grad():
        expected = theirs(TOKENS).logits
    torch.testing.assert_close(logits(model.llama()), expected, rtol=1e-5, atol=1e-5)
    assert isinstance(model.config, LlamaConfig)
    assert model.config.tie_word_embeddings == (kept != "both")
