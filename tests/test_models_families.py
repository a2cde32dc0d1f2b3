"""Each family of decoder gives the logits of `transformers`, in both forms, and loops like any."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from test_models_tokenizer import TEMPLATE, tiny, write_folder
from tiny import tiny_model

from ostinato.decode import Decode, SamplingParams, plain_prompt
from ostinato.errors import InputError, ModelError, UnknownLayout
from ostinato.inference import FixedShapeBackend
from ostinato.models import LanguageModel, Llama, LlamaConfig, add_lora, load_model, merge
from ostinato.testing import check_lane_process
from ostinato.train import save_model
from ostinato.train.completion_loss import completion_only_loss

transformers = pytest.importorskip("transformers")

TOKENS = torch.randint(0, 340, (2, 90), generator=torch.Generator().manual_seed(1))
SIZES: dict[str, Any] = {
    "vocab_size": 340,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "initializer_range": 0.2,
}
GPT2: dict[str, Any] = {
    "vocab_size": 340,
    "n_embd": 48,
    "n_layer": 2,
    "n_head": 4,
    "n_positions": 256,
    "initializer_range": 0.2,
}
WINDOWED = {"use_sliding_window": True, "sliding_window": 20, "max_window_layers": 1}
LINEAR = {"rope_type": "linear", "rope_theta": 500.0, "factor": 2.0}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "gpt2": ("GPT2", GPT2),
    "gpt2 untied": ("GPT2", {**GPT2, "tie_word_embeddings": False, "n_inner": 72}),
    "gpt2 relu": ("GPT2", {**GPT2, "activation_function": "relu"}),
    "mistral": ("Mistral", {**SIZES, "sliding_window": 24, "head_dim": 16}),
    "mistral tied": ("Mistral", {**SIZES, "sliding_window": None, "tie_word_embeddings": True}),
    "qwen2": ("Qwen2", {**SIZES, "rope_parameters": LINEAR}),
    "qwen2 tied": ("Qwen2", {**SIZES, "tie_word_embeddings": True}),
    "qwen2 windowed": ("Qwen2", {**SIZES, **WINDOWED}),
    "qwen3": ("Qwen3", {**SIZES, "head_dim": 20}),
    "qwen3 tied": ("Qwen3", {**SIZES, "head_dim": 12, "tie_word_embeddings": True}),
    "qwen3 biases": ("Qwen3", {**SIZES, "head_dim": 16, "attention_bias": True}),
}


@cache
def theirs(case: str) -> Any:
    """Return a random network of `transformers` whose biases and norms are drawn too."""
    family, config = CASES[case]
    torch.manual_seed(0)
    shape = getattr(transformers, f"{family}Config")(**config, eos_token_id=2, bos_token_id=1)
    kind = "LMHeadModel" if family == "GPT2" else "ForCausalLM"
    model = getattr(transformers, f"{family}{kind}")(shape).eval()
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() == 1:
                weight.add_(0.1 * torch.randn_like(weight))
    return model


def folder_of(case: str, folder: Path, shard: str = "1GB") -> Path:
    theirs(case).save_pretrained(folder, max_shard_size=shard)
    tiny().save(str(folder / "tokenizer.json"))
    return folder


def expected(case: str) -> torch.Tensor:
    with torch.no_grad():
        return theirs(case)(TOKENS).logits  # type: ignore[no-any-return]


def logits(network: Llama) -> torch.Tensor:
    with torch.no_grad():
        return network.logits(network(TOKENS))


def near(found: torch.Tensor, wanted: torch.Tensor) -> None:
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("case", CASES)
def test_logits_are_those_of_transformers(case: str, tmp_path: Path) -> None:
    ours = load_model(folder_of(case, tmp_path), dtype=torch.float32)
    near(logits(ours.llama()), expected(case))
    assert ours.config.model_type == CASES[case][0].lower()


@pytest.mark.parametrize("case", CASES)
def test_logits_over_the_cache_are_those_of_transformers(case: str, tmp_path: Path) -> None:
    ours = load_model(folder_of(case, tmp_path), dtype=torch.float32)
    inference, tokens = FixedShapeBackend(ours, 2), TOKENS[0].tolist()
    inference.prefill(1, tokens[:70])
    inference.feed([(1, 5, p) for p in range(70, 76)])  # gone back from
    rows = [(1, tokens[p], p) for p in range(70, 90)]
    found = torch.cat([inference.logits(inference.feed([row])) for row in rows])
    near(found, expected(case)[0, 70:])
    assert inference.self_test().batch_invariant


@pytest.mark.parametrize("case", ["gpt2", "gpt2 untied", "mistral", "qwen2 tied", "qwen3 biases"])
def test_sharded_files_give_the_same_model(case: str, tmp_path: Path) -> None:
    sharded = folder_of(case, tmp_path, shard="60KB")
    assert len(list(sharded.glob("*.safetensors"))) > 2
    near(logits(load_model(sharded, dtype=torch.float32).llama()), expected(case))


@pytest.mark.parametrize("case", CASES)
def test_transformers_loads_what_we_save(case: str, tmp_path: Path) -> None:
    ours = load_model(folder_of(case, tmp_path / "theirs"), dtype=torch.float32)
    save_model(tmp_path / "ours", ours.llama(), ours.tokenizer)
    again, info = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path / "ours", dtype=torch.float32, output_loading_info=True
    )
    assert not info["missing_keys"] and not info["unexpected_keys"]
    with torch.no_grad():
        near(again(TOKENS).logits, expected(case))
    near(logits(load_model(tmp_path / "ours", dtype=torch.float32).llama()), expected(case))


def test_an_older_gpt2_file_without_prefix_and_with_buffers_is_read(tmp_path: Path) -> None:
    path = folder_of("gpt2", tmp_path) / "model.safetensors"
    weights = {name.removeprefix("transformer."): w for name, w in load_file(path).items()}
    weights["h.0.attn.bias"] = torch.ones(1, 1, 256, 256)
    weights["h.1.attn.masked_bias"] = torch.tensor(-1e4)
    save_file(weights, path)
    near(logits(load_model(tmp_path, dtype=torch.float32).llama()), expected("gpt2"))


def language_model(case: str) -> LanguageModel:
    """Return a network of the family with a tokenizer that the lanes can be written with."""
    family, sizes = CASES[case]
    tokenizer = tiny_model().tokenizer
    values = {**sizes, "model_type": family.lower(), "vocab_size": tokenizer.vocab_size}
    config = LlamaConfig.from_dict(values)
    return LanguageModel(Llama(config, seed=3), tokenizer, config, Path(), case)


@pytest.mark.parametrize("case", ["gpt2", "mistral", "qwen2 windowed", "qwen3"])
def test_decode_conforms_on_each_family(case: str) -> None:
    model = language_model(case)
    items = {"short": "The", "long": "Your table is booked for two. " * 4, "other": "We can help"}

    def decode(slots: int) -> Decode:
        prompt = plain_prompt(model.tokenizer.encode)
        return Decode(model, prompt, slots=slots, sampling=SamplingParams(temperature=1.0))

    assert decode(2).deterministic
    check_lane_process(decode, items, steps=6, edits={"forbid": [5, 6]})


def test_the_chat_template_of_the_folder_is_applied(tmp_path: Path) -> None:
    theirs("qwen2 tied").save_pretrained(tmp_path)
    write_folder(tmp_path, chat_template=TEMPLATE)
    tokenizer = load_model(tmp_path, dtype=torch.float32).tokenizer
    text = tokenizer.chat_text([{"role": "user", "content": "hi"}])
    assert text.endswith("<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n")
    assert tokenizer.eos_ids == {2}


@pytest.mark.parametrize("case", ["mistral", "qwen2 tied", "qwen3"])
def test_an_adapter_is_learned_and_merged(case: str) -> None:
    network = language_model(case).llama()
    before = logits(network)
    add_lora(network, 2, seed=1)
    network(TOKENS).square().mean().backward()
    with torch.no_grad():
        for weight in network.parameters():
            if weight.requires_grad:
                assert weight.grad is not None
                weight.add_(0.1 * torch.randn_like(weight))
    tuned = logits(network)
    assert not torch.allclose(tuned, before, atol=1e-2)
    near(logits(merge(network)), tuned)


def test_what_a_family_cannot_do_is_refused() -> None:
    gpt2 = language_model("gpt2").llama()
    with pytest.raises(InputError, match="got a gpt2 network, whose files join some"):
        add_lora(gpt2, 2)
    with pytest.raises(InputError, match="needs a Llama network with silu, got gpt2"):
        completion_only_loss(gpt2, TOKENS, TOKENS > 0, [90, 90])
    with pytest.raises(InputError, match=r"at most 256 tokens .* got 257"):
        gpt2(torch.zeros(1, 257, dtype=torch.long))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"rope_scaling": {"type": "yarn", "factor": 4.0}}, "rope_type must be one of"),
        ({"hidden_act": "mish"}, "hidden_act must be one of"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor must be left out, got 0.5"),
        ({"quantization_config": {"quant_method": "gptq"}}, "must be left out, got 'gptq'"),
        ({**WINDOWED, "layer_types": ["chunked_attention"] * 2}, "layer_types must name"),
        ({"model_type": "gemma3"}, "model_type must be one of gpt2, llama, mistral"),
    ],
)
def test_unsupported_networks_are_recognized(values: dict[str, Any], message: str) -> None:
    with pytest.raises(UnknownLayout, match=message):
        LlamaConfig.from_dict({**SIZES, "model_type": "qwen2", **values})


def test_a_gpt2_that_scales_by_layer_is_another_network() -> None:
    values = {**GPT2, "model_type": "gpt2", "scale_attn_by_inverse_layer_idx": True}
    with pytest.raises(UnknownLayout, match="scale_attn_by_inverse_layer_idx must be False"):
        LlamaConfig.from_dict(values)


def test_what_config_json_leaves_out_is_what_transformers_takes() -> None:
    for family in ("GPT2", "Llama", "Mistral", "Qwen2", "Qwen3"):
        default = getattr(transformers, f"{family}Config")()
        kept = ("hidden_size", "num_attention_heads", "intermediate_size", "num_hidden_layers")
        keys = {k: k for k in (*kept, "vocab_size")}
        if family == "GPT2":
            keys |= {"hidden_size": "n_embd", "num_hidden_layers": "n_layer"}
            keys |= {"num_attention_heads": "n_head", "intermediate_size": "n_inner"}
        silent = {name: getattr(default, name) for name in keys.values()}
        found = LlamaConfig.from_dict({**silent, "model_type": family.lower()})
        explicit = LlamaConfig.from_dict(json.loads(default.to_json_string(use_diff=False)))
        names = ("head_dim", "tie_word_embeddings", "rms_norm_eps", "max_position_embeddings")
        for name in (*names, "windows", "attention_bias", "hidden_act"):
            assert getattr(found, name) == getattr(explicit, name), (family, name)


def test_weights_of_another_family_are_refused(tmp_path: Path) -> None:
    folder = folder_of("qwen3", tmp_path)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "mistral"}))
    with pytest.raises(ModelError, match=r"must hold a mistral network, got '.*norm"):
        load_model(folder)


@pytest.mark.parametrize("name", ["Qwen2", "Qwen3"])
def test_a_window_of_qwen_begins_at_the_layer_that_its_class_says(name: str) -> None:
    theirs = getattr(transformers, f"{name}Config")(use_sliding_window=True, num_hidden_layers=30)
    values = theirs.to_dict()
    for silent in ("layer_types", "max_window_layers", "sliding_window"):
        del values[silent]
    ours = LlamaConfig.from_dict(values)
    sliding = [kind == "sliding_attention" for kind in theirs.layer_types]
    assert [window == theirs.sliding_window for window in ours.windows] == sliding
    assert sorted(set(sliding)) == [False, True]
