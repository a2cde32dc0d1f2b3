"""Names and shapes of weights: those in files, and those of our network.

Llama, Mistral and Qwen files match the network. GPT-2's join queries, keys and values in one matrix
and store matrices transposed (`Conv1D`, from GPT-1: "Improving language understanding", Radford et
al., 2018). Older files omit the prefix `transformer.` of each name. Knows no file formats.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping

import torch
from torch import Tensor

from ostinato.models.networks.config import LlamaConfig

Weights = Iterable[tuple[str, Tensor]]

_TOP = {
    "wte.weight": "model.embed_tokens.weight",
    "wpe.weight": "model.embed_positions.weight",
    "ln_f.weight": "model.norm.weight",
    "ln_f.bias": "model.norm.bias",
}
_LAYER = {
    "ln_1": "input_layernorm",
    "attn.c_proj": "self_attn.o_proj",
    "ln_2": "post_attention_layernorm",
    "mlp.c_fc": "mlp.up_proj",
    "mlp.c_proj": "mlp.down_proj",
}
_QKV = tuple(f"self_attn.{name}_proj" for name in "qkv")
_NAME = re.compile(r"h\.(\d+)\.([\w.]+)\.(weight|bias)")
# Older versions of transformers saved causal masks and frequencies, which our network computes.
_BUFFERS = re.compile(r"h\.\d+\.attn\.(bias|masked_bias)|.*rotary_emb\.inv_freq")


def from_file(config: LlamaConfig, weights: Weights) -> Iterator[tuple[str, Tensor]]:
    """Yield a file's weights under the names and in the shapes of our network.

    Unknown names are passed through, for the caller to refuse; buffers in older files are dropped.
    """
    for name, tensor in weights:
        name = name.removeprefix("transformer.") if config.family.fused else name
        if _BUFFERS.fullmatch(name):
            continue
        yield from _unfused(name, tensor) if config.family.fused else [(name, tensor)]


def to_file(config: LlamaConfig, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights of our network under the names and in the shapes of its family's files.

    A tied head is omitted.
    """
    kept = {
        name: tensor
        for name, tensor in weights.items()
        if name != "lm_head.weight" or not config.tie_word_embeddings
    }
    if config.family.fused:
        kept = dict(_fused(kept))
    return {name: tensor.contiguous() for name, tensor in kept.items()}


def split_heads(layer: str, leaf: str, joined: Tensor) -> Iterator[tuple[str, Tensor]]:
    """Yield queries, keys and values of a joined tensor (3 * C, ...), each in its own memory."""
    # Clones: a view would keep the whole joined tensor in memory.
    for part, tensor in zip(_QKV, joined.chunk(3), strict=True):
        yield (
            f"model.layers.{layer}.{part}.{leaf}",
            tensor.clone(memory_format=torch.contiguous_format),
        )


def _unfused(name: str, tensor: Tensor) -> Iterator[tuple[str, Tensor]]:
    match = _NAME.fullmatch(name)
    if match is None:
        yield _TOP.get(name, name), tensor
        return
    layer, part, leaf = match.groups()
    upright = tensor.t() if tensor.dim() == 2 else tensor
    if part == "attn.c_attn":
        yield from split_heads(layer, leaf, upright)
    else:
        yield f"model.layers.{layer}.{_LAYER.get(part, part)}.{leaf}", upright.contiguous()


def _fused(weights: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    top = {ours: f"transformer.{theirs}" for theirs, ours in _TOP.items()}
    parts = {ours: theirs for theirs, ours in _LAYER.items()}
    for name, tensor in weights.items():
        match = re.fullmatch(r"model\.layers\.(\d+)\.([\w.]+)\.(weight|bias)", name)
        if match is None:
            yield top.get(name, name), tensor
            continue
        layer, part, leaf = match.groups()
        if part == _QKV[0]:  # joins all three; the other two are skipped below
            whole = [weights[f"model.layers.{layer}.{p}.{leaf}"] for p in _QKV]
            joined, part = torch.cat(whole), "attn.c_attn"
        elif part in _QKV:
            continue
        else:
            joined, part = tensor, parts[part]
        yield f"transformer.h.{layer}.{part}.{leaf}", joined.t() if joined.dim() == 2 else joined
