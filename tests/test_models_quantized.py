"""A quantized GGUF file is not widened: its network computes what the widened one computes."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from test_models_gguf_families import TOKENS, arch, logits, network
from test_models_groups import HALVES, random_blocks
from tiny_gguf import write_gguf

from ostinato.errors import InputError, ModelError
from ostinato.inference import FixedShapeBackend
from ostinato.models import (
    Llama,
    QuantizedEmbedding,
    QuantizedLinear,
    add_lora,
    compute_dtype,
    is_quantized,
    load_adapter,
    load_model,
    merge,
    save_adapter,
)
from ostinato.train import Example, TextTask, Training, save_model

KINDS = ("Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0")


def form(kind: str) -> Any:
    return gguf.GGMLQuantizationType[kind]


def both(path: Path) -> tuple[Llama, Llama]:
    """Return the network of a file as it is loaded, and widened to the same dtype."""
    return load_model(path).llama(), load_model(path, dtype=compute_dtype()).llama()


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("family", ["llama", "mistral", "qwen2", "qwen3"])
@pytest.mark.parametrize("kind", KINDS)
def test_it_computes_the_same_bits_as_the_widened_network(
    kind: str, family: str, tied: bool, tmp_path: Path
) -> None:
    path = tmp_path / "tiny.gguf"
    write_gguf(path, network(family, tied), form(kind), arch=arch(family))
    stored, widened = both(path)
    assert is_quantized(stored) and not is_quantized(widened)
    assert stored.dtype == widened.dtype
    assert torch.equal(logits(stored), logits(widened))


@pytest.mark.parametrize("kind", ["Q4_0", "Q8_0"])
def test_the_plain_backend_computes_the_same_bits(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "tiny.gguf"
    write_gguf(path, network("llama"), form(kind))
    out = []
    for model in both(path):
        backend = FixedShapeBackend(model, 2)
        backend.prefill(0, TOKENS[0, :20].tolist())
        out.append(backend.logits(backend.feed([(0, 5, 20), (1, 7, 0)])))
    assert torch.equal(*out)


def test_every_matrix_stays_in_the_memory_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "tiny.gguf"
    write_gguf(path, network("llama"), form("Q4_0"))
    stored = load_model(path).llama()
    assert all(p.dim() == 1 for p in stored.parameters())
    matrices = [m for m in stored.modules() if isinstance(m, QuantizedLinear | QuantizedEmbedding)]
    assert len(matrices) == 2 + 7 * stored.config.num_hidden_layers
    mapped = np.memmap(path, dtype=np.uint8, mode="r")
    for module in matrices:
        blocks = module.matrix.blocks
        assert mapped.tobytes().find(blocks.numpy().tobytes()) > 0
        assert not blocks.numpy().flags.owndata
    head, embedding = stored.lm_head, stored.model.embed_tokens
    assert isinstance(head, QuantizedLinear) and isinstance(embedding, QuantizedEmbedding)
    assert head.matrix is embedding.matrix  # tied


@pytest.mark.parametrize("kind", ["Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_NL", "IQ4_XS"])
def test_matrices_of_any_type_are_near_the_widened_ones(kind: str, tmp_path: Path) -> None:
    path, kind_form = tmp_path / "tiny.gguf", form(kind)
    quantized = {"blk.0.ffn_down.weight": (random_blocks(kind, outputs=64).numpy(), kind_form)}
    write_gguf(path, network("llama", intermediate_size=512), form("Q8_0"), quantized=quantized)
    layers = [next(model.blocks()).mlp.down_proj for model in both(path)]
    assert isinstance(layers[0], QuantizedLinear) and not isinstance(layers[1], QuantizedLinear)
    found, wanted = (layer.weight.detach().float() for layer in layers)
    assert found.shape == wanted.shape == (64, 512)
    # Scales are rounded to 11 bits; a minimum may leave little of the weight.
    torch.testing.assert_close(found, wanted, rtol=2**-6, atol=2**-8 * float(wanted.std()))


@pytest.mark.parametrize("kind", ["F16", "BF16", "IQ3_S"])
def test_other_types_are_floats(kind: str, tmp_path: Path) -> None:
    path, kind_form = tmp_path / "tiny.gguf", form(kind)
    model = network("qwen2", intermediate_size=256, num_hidden_layers=1)
    drawn = np.random.default_rng(4)
    size, width = gguf.GGML_QUANT_SIZES[kind_form]
    raw = drawn.integers(0, 60, (64, 256 // size * width)).astype(np.uint8)
    write_gguf(path, model, arch="qwen2", quantized={"blk.0.ffn_down.weight": (raw, kind_form)})
    stored, widened = both(path)
    assert not is_quantized(stored)
    assert torch.equal(logits(stored), logits(widened))


def test_gpt2_is_widened_as_its_files_join_matrices(tmp_path: Path) -> None:
    path = tmp_path / "tiny.gguf"
    write_gguf(path, network("gpt2"), form("Q8_0"), arch="gpt2")
    stored, widened = both(path)
    assert not is_quantized(stored)
    assert torch.equal(logits(stored), logits(widened))


def test_a_converted_network_computes_in_its_new_dtype(tmp_path: Path) -> None:
    path = tmp_path / "tiny.gguf"
    write_gguf(path, network("llama"), form("Q5_1"))
    for dtype in (torch.bfloat16, torch.float32):
        stored, widened = both(path)
        stored.to(dtype)
        assert stored.dtype == stored.lm_head.weight.dtype == dtype
        if dtype == compute_dtype():
            assert torch.equal(logits(stored), logits(widened))


def test_what_is_saved_is_the_widened_network(tmp_path: Path) -> None:
    path = tmp_path / "tiny.gguf"
    write_gguf(path, network("llama"), form("Q4_1"))
    model = load_model(path)
    save_model(tmp_path / "folder", model.llama(), model.tokenizer)
    saved = load_model(tmp_path / "folder", dtype=compute_dtype()).llama()
    assert torch.equal(logits(saved), logits(load_model(path).llama()))


def test_an_adapter_widens_only_what_it_changes(tmp_path: Path) -> None:
    path = tmp_path / "tiny.gguf"
    write_gguf(path, network("llama"), form("Q8_0"))
    folder = tmp_path / "adapter"
    tuned = add_lora(
        load_model(path, dtype=torch.float32).llama(), 4, targets=("q_proj", "up_proj")
    )
    with torch.no_grad():
        for name, weight in tuned.named_parameters():
            if "lora_B" in name:
                weight.normal_(0.0, 0.1, generator=torch.Generator().manual_seed(5))
    save_adapter(tuned, folder, base=str(path))
    stored = load_model(path, adapter=folder).llama()
    widened = merge(load_adapter(load_model(path, dtype=compute_dtype()).llama(), folder))
    assert torch.equal(logits(stored), logits(widened))
    for block in stored.blocks():
        assert not isinstance(block.self_attn.q_proj, QuantizedLinear)
        assert not isinstance(block.mlp.up_proj, QuantizedLinear)
        assert isinstance(block.self_attn.k_proj, QuantizedLinear)


def test_training_it_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "tiny.gguf"
    write_gguf(path, network("llama"), form("Q8_0"))
    task = TextTask([Example((1, 5, 6, 2), (True,) * 4)])
    with pytest.raises(
        InputError, match=r"must have its matrices in floats, .* dtype=torch\.float32"
    ):
        Training(load_model(path).llama(), task)
    Training(load_model(path, dtype=torch.float32).llama(), task).step()


def test_an_unknown_type_names_the_tensor_and_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "tiny.gguf"
    write_gguf(path, network("llama"), form("Q8_0"))
    name = b"blk.1.ffn_up.weight"
    content = bytearray(path.read_bytes())
    at = content.index(name) + len(name)  # two dimensions, their sizes, the type
    content[at + 20 : at + 24] = struct.pack("<I", 199)
    path.write_bytes(content)
    expected = r"blk.1.ffn_up.weight in tiny.gguf must be of a type .* got number 199\. Use another"
    with pytest.raises(ModelError, match=expected):
        load_model(path)


def test_a_damaged_scale_names_the_file_s_fault(tmp_path: Path) -> None:
    path = tmp_path / "tiny.gguf"
    model = network("qwen2", intermediate_size=512)
    blocks = random_blocks("Q8_0", outputs=64).numpy()
    at = HALVES["Q8_0"][0]
    blocks[0, at : at + 2] = 255
    quantized = {"blk.0.ffn_down.weight": (blocks, form("Q8_0"))}
    write_gguf(path, model, arch="qwen2", quantized=quantized)
    with pytest.raises(ModelError, match="a scale of type Q8_0 must be a finite number"):
        logits(load_model(path).llama())
