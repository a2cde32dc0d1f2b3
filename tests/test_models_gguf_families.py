"""GGUF files of each family and quantized type give the network that was written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from test_models_tokenizer import tiny
from tiny_gguf import write_gguf

from ostinato.errors import ModelError
from ostinato.models import Llama, LlamaConfig, load_model

TOKENS = torch.randint(0, 340, (2, 60), generator=torch.Generator().manual_seed(1))
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
CASES: dict[str, dict[str, Any]] = {
    "gpt2": {"n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 256, "num_key_value_heads": 4},
    "llama": {"attention_bias": True, "mlp_bias": True},
    "mistral": {"sliding_window": 24},
    "qwen2": {"rope_theta": 777.0},
    "qwen3": {"head_dim": 32},
}
DEQUANTIZED_ONLY = (
    *("Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K"),
    *("IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S"),
    *("IQ3_XXS", "IQ3_S", "IQ4_NL", "IQ4_XS"),
)


def network(family: str, tied: bool = True, **more: object) -> Llama:
    values = {**SIZES, "model_type": family, "tie_word_embeddings": tied, **CASES[family], **more}
    model = Llama(LlamaConfig.from_dict(values), seed=3).eval()
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() == 1:
                weight.add_(0.1 * torch.randn_like(weight))
    return model


def arch(family: str) -> str:
    return "llama" if family == "mistral" else family


def logits(model: Llama) -> torch.Tensor:
    with torch.no_grad():
        return model.logits(model(TOKENS))


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("family", CASES)
def test_a_file_gives_the_network_that_was_written(family: str, tied: bool, tmp_path: Path) -> None:
    model, path = network(family, tied), tmp_path / "tiny.gguf"
    write_gguf(path, model, arch=arch(family))
    loaded = load_model(path, dtype=torch.float32)
    assert loaded.config.model_type == family
    assert loaded.llama().config.windows == model.config.windows
    torch.testing.assert_close(logits(loaded.llama()), logits(model), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("family", ["gpt2", "mistral", "qwen3"])
@pytest.mark.parametrize(
    ("kind", "near"), [("BF16", 0.2), ("Q8_0", 0.2), ("Q5_0", 1.5), ("Q5_1", 1.5), ("Q4_0", 4.0)]
)
def test_quantized_matrices_are_near_what_was_written(
    family: str, kind: str, near: float, tmp_path: Path
) -> None:
    model, path = network(family), tmp_path / "tiny.gguf"
    write_gguf(path, model, gguf.GGMLQuantizationType[kind], arch=arch(family))
    loaded = load_model(path, dtype=torch.float32).llama()
    difference = (logits(loaded) - logits(model)).abs().mean()
    assert 0 < difference < near


def wide() -> Llama:
    """Return a network whose rows hold the 256 values of a K-quant's block."""
    return network("qwen2", intermediate_size=256, num_hidden_layers=1)


@pytest.mark.parametrize("kind", DEQUANTIZED_ONLY)
def test_types_that_gguf_only_dequantizes_are_read(kind: str, tmp_path: Path) -> None:
    form = gguf.GGMLQuantizationType[kind]
    size, width = gguf.GGML_QUANT_SIZES[form]
    drawn = np.random.default_rng(4)
    raw = drawn.integers(0, 60, (64, 256 // size * width)).astype(np.uint8)  # halves below 1
    path = tmp_path / "tiny.gguf"
    write_gguf(path, wide(), arch="qwen2", quantized={"blk.0.ffn_down.weight": (raw, form)})
    loaded = load_model(path, dtype=torch.float32).llama()
    found = next(loaded.blocks()).mlp.down_proj.weight
    wanted = torch.from_numpy(gguf.dequantize(raw, form))
    assert found.shape == (64, 256) and found.isfinite().all() and found.std() > 0
    assert torch.equal(found, wanted)


def test_a_block_of_q6_k_says_what_its_bits_say(tmp_path: Path) -> None:
    """Each value is d * scale * (4 low bits + 2 high bits - 32): laid out as ggml's block_q6_K."""
    drawn = np.random.default_rng(5)
    values = drawn.integers(0, 64, 256)
    scales = drawn.integers(-100, 100, 16).astype(np.int8)
    low, high = np.zeros(128, np.uint8), np.zeros(64, np.uint8)
    for i, value in enumerate(values):
        half, quarter, column = i // 128, i % 128 // 32, i % 32
        low[64 * half + 32 * (quarter % 2) + column] |= (value & 15) << (4 * (quarter // 2))
        high[32 * half + column] |= (value >> 4) << (2 * quarter)
    block = np.concatenate([low, high, scales.view(np.uint8), np.array([0.5], "<f2").view("u1")])
    path, raw = tmp_path / "tiny.gguf", np.tile(block, (64, 1))
    write_gguf(
        path,
        wide(),
        arch="qwen2",
        quantized={"blk.0.ffn_down.weight": (raw, gguf.GGMLQuantizationType.Q6_K)},
    )
    loaded = load_model(path, dtype=torch.float32).llama()
    wanted = 0.5 * np.repeat(scales.astype(np.float32), 16) * (values - 32)
    found = next(loaded.blocks()).mlp.down_proj.weight.detach()
    assert np.array_equal(found.numpy(), np.tile(wanted.astype(np.float32), (64, 1)))


@pytest.mark.parametrize("pre", ["gpt-2", "qwen2"])
def test_the_tokenizer_and_template_of_a_file_are_read(pre: str, tmp_path: Path) -> None:
    path = tmp_path / "tiny.gguf"
    write_gguf(path, network("qwen2"), arch="qwen2", pre=pre)
    tokenizer = load_model(path, dtype=torch.float32).tokenizer
    text = "The train to Łódź leaves at ten, don't be late!"
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.encode("train") == tiny().encode("train").ids
    talk = [{"role": "user", "content": "hi"}]
    assert tokenizer.chat_text(talk).endswith("hi<|im_end|>\n<|im_start|>assistant\n")


def test_why_a_file_cannot_be_read_is_reported(tmp_path: Path) -> None:
    path, model = tmp_path / "tiny.gguf", network("qwen2")

    def yarn(writer: gguf.GGUFWriter) -> None:
        writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)

    write_gguf(path, model, arch="qwen2", more=yarn)
    with pytest.raises(ModelError, match="must be none, linear or llama3, got 'yarn'"):
        load_model(path)
    write_gguf(path, model, arch="qwen2", more=lambda w: w.add_uint16("split.count", 3))
    with pytest.raises(ModelError, match="must be a whole model, got one of 3 parts"):
        load_model(path)
    write_gguf(path, model, arch="qwen2", more=lambda w: w.add_sliding_window(20))
    with pytest.raises(ModelError, match="got a window of 20: the file does not say"):
        load_model(path)
