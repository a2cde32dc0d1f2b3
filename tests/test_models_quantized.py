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
from ostinato.inference import Backend, CompiledBackend, FixedShapeBackend, has_compiler
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
        InputError, match=r"must have its matrices in memory as floats, .* dtype=torch\.float32"
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


COMPILED = pytest.mark.skipif(not has_compiler(), reason="there is no C++ compiler")


def hidden_states(backend: Backend) -> torch.Tensor:
    backend.prefill(0, TOKENS[0, :20].tolist())
    return backend.feed([(0, 5, 20), (1, 7, 0)])


@COMPILED
@pytest.mark.parametrize("kind", ["Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_NL", "IQ4_XS"])
def test_the_compiled_pass_takes_matrices_of_any_type(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "tiny.gguf"
    blocks = random_blocks(kind, outputs=64).numpy()
    quantized = {"blk.0.ffn_down.weight": (blocks, form(kind))}
    write_gguf(path, network("llama", intermediate_size=512), form("Q8_0"), quantized=quantized)
    check_compiled_numbers(path)


@COMPILED
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_compiled_pass_takes_the_blocks_of_a_file(
    kind: str, family: str, tied: bool, tmp_path: Path
) -> None:
    path = tmp_path / "tiny.gguf"
    write_gguf(path, network(family, tied), form(kind), arch=arch(family))
    check_compiled_numbers(path)


@COMPILED
@pytest.mark.parametrize("mixed", ["attn_v", "attn_k", "ffn_up"])
def test_matrices_of_several_types_share_their_inputs(mixed: str, tmp_path: Path) -> None:
    """As in files of type Q4_K_M, whose values have more bits than their queries and keys."""
    path = tmp_path / "tiny.gguf"
    model = network("qwen2")
    weight = model.state_dict()[f"model.layers.0.{LAYERS[mixed]}.weight"].numpy()
    blocks = gguf.quantize(weight, form("Q8_0"))
    quantized = {f"blk.0.{mixed}.weight": (blocks, form("Q8_0"))}
    write_gguf(path, model, form("Q4_1"), arch="qwen2", quantized=quantized)
    check_compiled_numbers(path)


LAYERS = {"attn_v": "self_attn.v_proj", "attn_k": "self_attn.k_proj", "ffn_up": "mlp.up_proj"}


def check_compiled_numbers(path: Path) -> None:
    """Compare with the widened network: rows in 8 bits and the cache in 16 differ."""
    plain = FixedShapeBackend(load_model(path, dtype=torch.float32), 2)
    stored = load_model(path).llama()
    compiled = CompiledBackend(stored, 2)
    expected, found = hidden_states(plain), hidden_states(compiled)
    assert (found - expected).abs().mean() < 0.08 * expected.abs().mean()
    right, logits = plain.logits(expected), compiled.logits(expected)
    assert (logits - right).abs().mean() < 0.03 * right.abs().mean()
    for block, layer in zip(stored.blocks(), compiled._weights.layers, strict=True):
        attention = block.self_attn
        check_product(compiled, layer.qkv, [attention.q_proj, attention.k_proj, attention.v_proj])
        check_product(compiled, layer.out, [attention.o_proj])
        assert block.mlp.down_proj is not None
        check_product(compiled, layer.down, [block.mlp.down_proj])


def check_product(compiled: CompiledBackend, product: Any, parts: list[torch.nn.Linear]) -> None:
    """Compare with exact sums: what is left is the rounding of the sums of groups."""
    rows = torch.randn(5, parts[0].in_features, generator=torch.Generator().manual_seed(3))
    groups = rows.view(5, -1, 32)
    scale = groups.abs().amax(2, keepdim=True) / 127
    inputs = ((groups / scale).round() * scale).flatten(1).double()
    expected = torch.cat([rounded_layer(part)(inputs) for part in parts], 1).float()
    torch.testing.assert_close(
        compiled.multiplied(product, rows)[:, : expected.size(1)], expected, rtol=1e-4, atol=1e-4
    )


def rounded_layer(part: torch.nn.Linear) -> torch.nn.Linear:
    assert isinstance(part, QuantizedLinear)
    layer = torch.nn.Linear(part.in_features, part.out_features, bias=False).double()
    with torch.no_grad():
        layer.weight.copy_(part.groups().dequantized(torch.float64))
        if part.bias is not None:
            layer.bias = torch.nn.Parameter(part.bias.detach().double())
    return layer.requires_grad_(False)
