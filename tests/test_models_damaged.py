"""A damaged file of a model is reported with its name, the key, the value and the fix."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import save_tiny

from ostinato.errors import ModelError
from ostinato.models import LanguageModel, LlamaConfig, load_model
from ostinato.models.networks.bert import BertConfig
from ostinato.models.networks.gru import GRUConfig

SIZES = [
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "max_position_embeddings",
]
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}


def changed(folder: Path, **values: Any) -> LanguageModel:
    """Load the tiny model with other values in its `config.json`."""
    path = save_tiny(folder) / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))
    return load_model(folder, dtype=torch.float32)


@pytest.mark.parametrize("value", ["x", "48", 0, -4, 1.5, True, [1], None])
@pytest.mark.parametrize("name", SIZES)
def test_a_size_is_a_whole_number_above_0(name: str, value: Any, tmp_path: Path) -> None:
    if value is None and name in ("num_key_value_heads", "head_dim"):
        pytest.skip("null says as much as nothing")
    with pytest.raises(ModelError, match=rf"^{name} in .*it/config\.json must be a whole number"):
        changed(tmp_path / "it", **{name: value})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"eos_token_id": "</s>"}, r'eos_token_id in .*config\.json must be .*, got "</s>"\. Use'),
        ({"eos_token_id": [None]}, r"eos_token_id in .* or a list of them, got \[null\]"),
        ({"pad_token_id": "x"}, "pad_token_id in .* must be a whole number or null"),
        ({"rope_parameters": "x"}, "rope_parameters in .* must be an object"),
        ({"rope_parameters": {"rope_type": None}}, "rope_type must be a text, got None"),
        ({"quantization_config": "x"}, "quantization_config in .* must be an object"),
        ({"rms_norm_eps": "a"}, "rms_norm_eps in .* must be a number"),
        ({"rms_norm_eps": -1e-6}, "rms_norm_eps in .* must be a finite number, 0 or more"),
        ({"initializer_range": float("nan")}, "initializer_range in .* must be a finite number"),
        ({"rope_theta": "x"}, "rope_theta in .* must be a number"),
        ({"rope_theta": 0}, "rope_theta must be above 0"),
        ({"tie_word_embeddings": "no"}, "tie_word_embeddings in .* must be true or false"),
        ({"hidden_act": None}, "hidden_act in .* must be a text, got null"),
        ({"model_type": ["llama"]}, r'model_type in .* must be a text, got \["llama"\]'),
        ({"model_type": "mistral", "sliding_window": "x"}, "sliding_window in .* whole number"),
        ({"model_type": "mistral", "layer_types": "x"}, "layer_types in .* a list of texts"),
    ],
)
def test_a_value_of_another_type_is_reported(
    values: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match=message):
        changed(tmp_path / "it", **values)


@pytest.mark.parametrize(
    ("scaling", "message"),
    [
        ({"rope_type": "linear"}, "factor must be a number above 0 with 'linear' .*, got None"),
        ({"rope_type": "linear", "factor": 0}, "factor must be a number above 0"),
        ({"rope_type": "linear", "factor": "2"}, "factor must be a number above 0"),
        *(
            ({**LLAMA3, name: None}, f"{name} must be a number above 0 with 'llama3'")
            for name in LLAMA3
            if name != "rope_type"
        ),
        ({**LLAMA3, "low_freq_factor": 4.0}, r"must be above low_freq_factor \(4\.0\), got 4\.0"),
    ],
)
def test_position_scaling_has_its_numbers(
    scaling: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match=message):
        changed(tmp_path / "it", rope_parameters=scaling)


def test_a_key_is_reported_under_the_files_own_name() -> None:
    values = {"model_type": "gpt2", "vocab_size": 10, "n_embd": "x", "n_layer": 1, "n_head": 2}
    with pytest.raises(ModelError, match=r'^n_embd in config\.json must be .*, got "x"'):
        LlamaConfig.from_dict(values)
    del values["n_embd"]
    with pytest.raises(ModelError, match=r"^config\.json must have 'n_embd', got none"):
        LlamaConfig.from_dict(values)


def test_pickled_weights_are_refused_with_a_conversion(
    tmp_path: Path,
) -> None:
    folder = save_tiny(tmp_path / "it")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(ModelError, match=r"got pytorch_model\.bin\. Pickled .*[.]save_pretrained"):
        load_model(folder)
    (folder / "pytorch_model.bin").unlink()
    with pytest.raises(ModelError, match=r"must hold model\.safetensors, .*, got none\. D"):
        load_model(folder)


def test_a_sentence_encoder_is_refused_as_a_language_model() -> None:
    with pytest.raises(ModelError, match=r"\(smollm2\), got 'minilm': .* the check on_topic"):
        load_model("minilm")


def test_the_other_networks_read_by_type_too() -> None:
    sizes = {"vocab_size": 10, "hidden_size": 8, "num_hidden_layers": 1}
    with pytest.raises(ModelError, match=r"hidden_size in .* must be a whole number"):
        GRUConfig.from_dict({**sizes, "hidden_size": "x"})
    bert = {**sizes, "num_attention_heads": 2, "intermediate_size": 8}
    with pytest.raises(ModelError, match=r"layer_norm_eps in .* must be a number"):
        BertConfig.from_dict({**bert, "layer_norm_eps": None})
    assert BertConfig.from_dict(bert) == BertConfig(**bert)


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("generation_config.json", '{"eos_token_id": "x"}', r"eos_token_id in .*generation_config"),
        ("model.safetensors.index.json", '{"weight_map": [1]}', "weight_map in .* an object"),
        ("model.safetensors.index.json", '{"weight_map": {"a": 1}}', "a in .* must be a text"),
        ("model.safetensors.index.json", "{}", "must have 'weight_map', got none"),
        ("tokenizer_config.json", '{"chat_template": [{"nme": "x"}]}', "must have 'name', got"),
        ("tokenizer_config.json", '{"chat_template": ["x"]}', "list of objects with name and tem"),
        ("config.json", "[" * 100_000, r"config\.json must be JSON, got: values nested too deeply"),
    ],
)
def test_a_damaged_file_is_reported(file: str, text: str, message: str, tmp_path: Path) -> None:
    folder = save_tiny(tmp_path / "it")
    (folder / file).write_text(text)
    if "index" in file:  # it counts where there is no whole file
        (folder / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=message):
        load_model(folder)
