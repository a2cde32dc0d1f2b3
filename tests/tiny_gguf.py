"""Write a network of ours as a GGUF file, as llama.cpp's converter does."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType

import gguf
import numpy as np
from test_models_tokenizer import SPECIALS, TEMPLATE, tiny
from tiny import tiny_model

from ostinato.models import Llama, LlamaConfig, Tokenizer

Form = gguf.GGMLQuantizationType
BLOCK = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
TOP = {
    "model.embed_tokens": "token_embd",
    "model.embed_positions": "position_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
}
NAME = re.compile(r"model\.layers\.(\d+)\.([\w.]+)\.(weight|bias)")


def permuted(weight: np.ndarray, heads: int) -> np.ndarray:
    """Reorder rows as llama.cpp's converter does for Llama networks."""
    shape = weight.shape
    return weight.reshape(heads, 2, shape[0] // heads // 2, -1).swapaxes(1, 2).reshape(shape)


def tensors(model: Llama, arch: str) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the tensors under the file's names."""
    config, weights = model.config, {k: v.numpy() for k, v in model.state_dict().items()}
    for name, values in weights.items():
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        match = NAME.fullmatch(name)
        if match is None:
            path, _, leaf = name.rpartition(".")
            yield f"{TOP[path]}.{leaf}", values
            continue
        number, part, leaf = match.groups()
        if arch == "gpt2" and part == "self_attn.q_proj":
            whole = [weights[name.replace("q_proj", f"{p}_proj")] for p in "qkv"]
            yield f"blk.{number}.attn_qkv.{leaf}", np.concatenate(whole)
        elif arch != "gpt2" or part not in ("self_attn.k_proj", "self_attn.v_proj"):
            heads = {"q": config.num_attention_heads, "k": config.num_key_value_heads}
            if arch == "llama" and part in ("self_attn.q_proj", "self_attn.k_proj"):
                values = permuted(values, heads[part[10]])
            yield f"blk.{number}.{BLOCK[part]}.{leaf}", values


def metadata(writer: gguf.GGUFWriter, config: LlamaConfig, arch: str) -> None:
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    if arch == "gpt2":
        writer.add_layer_norm_eps(config.rms_norm_eps)
        return
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_rope_freq_base(config.rope_theta)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_key_length(config.head_dim)
    writer.add_value_length(config.head_dim)
    if config.sliding_window:
        writer.add_sliding_window(config.sliding_window)


def vocabulary(
    writer: gguf.GGUFWriter, size: int, pre: str, tokenizer: Tokenizer | None = None
) -> None:
    backend = json.loads((tokenizer.backend if tokenizer else tiny()).to_str())["model"]
    tokens = sorted(backend["vocab"], key=backend["vocab"].get)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    specials = tokenizer.special_ids if tokenizer else {backend["vocab"][s] for s in SPECIALS}
    kinds = [3 if backend["vocab"][token] in specials else 1 for token in tokens]
    padding = size - len(tokens)
    tokens += [f"[PAD{i}]" for i in range(padding)]
    writer.add_token_types([*kinds, *[5] * padding])
    writer.add_token_list(tokens)
    writer.add_token_merges([" ".join(merge) for merge in backend["merges"]])
    writer.add_eos_token_id(2)
    writer.add_bos_token_id(1)
    writer.add_chat_template((tokenizer and tokenizer.chat_template) or TEMPLATE)


def write_gguf(
    path: Path,
    model: Llama,
    kind: Form = Form.F32,
    arch: str = "llama",
    pre: str = "smollm",
    more: Callable[[gguf.GGUFWriter], None] = lambda writer: None,
    quantized: Mapping[str, tuple[np.ndarray, Form]] = MappingProxyType({}),
    tokenizer: Tokenizer | None = None,
) -> None:
    """Write the network; matrices are quantized as `kind`, unless `quantized` has them.

    `tokenizer` replaces the tiny byte-level one; its end tokens must be the same.
    """
    writer = gguf.GGUFWriter(path, arch)
    metadata(writer, model.config, arch)
    vocabulary(writer, model.config.vocab_size, pre, tokenizer)
    more(writer)
    for name, values in tensors(model, arch):
        form = kind if values.ndim == 2 else Form.F32
        if name in quantized:
            raw, form = quantized[name]
        else:
            raw = gguf.quantize(np.ascontiguousarray(values), form)
        writer.add_tensor(name, raw, raw_dtype=form)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def save_tiny_gguf(folder: Path, kind: str) -> Path:
    """Write the tiny model with matrices of a quantized type; return the file's path."""
    path, model = folder / f"{kind}.gguf", tiny_model()
    quantized = gguf.GGMLQuantizationType[kind]
    write_gguf(path, model.llama(), quantized, tokenizer=model.tokenizer)
    return path
