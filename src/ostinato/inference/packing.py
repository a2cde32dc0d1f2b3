"""A layer's weights made ready for `FixedShapeBackend`: products with the same input joined, and packed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ostinato.inference.linear import Product, linear
from ostinato.models import Attention, DecoderLayer, LayerNorm, Norm


@dataclass
class PackedLayer:
    """The products and norms of one layer. Without gate, `up` is that product alone."""

    norm1: Product
    qkv: Product
    q_norm: Product | None
    k_norm: Product | None
    out: Product
    norm2: Product
    up: Product  # gate and up, where there is a gate
    down: Product


def pack_layer(layer: DecoderLayer, rows: int, *, packed: bool, rotary: bool = True) -> PackedLayer:
    """Return `layer` for products of `rows` rows.

    Rotary positions scale the queries with their turn; others have it in the weights here.
    """

    def joined(*parts: tuple[Tensor, Tensor | None]) -> Product:
        return _joined(parts, rows, packed)

    attention, mlp = layer.self_attn, layer.mlp
    up = (
        [_both(mlp.up_proj)]
        if mlp.gate_proj is None
        else [_both(mlp.gate_proj), _both(mlp.up_proj)]
    )
    return PackedLayer(
        norm1=pack_norm(layer.input_layernorm),
        qkv=joined(*_heads(attention, rotary)),
        q_norm=_paired_norm(attention.q_norm),
        k_norm=_paired_norm(attention.k_norm),
        out=joined(_both(attention.o_proj)),
        norm2=pack_norm(layer.post_attention_layernorm),
        up=joined(*up),
        down=joined(_both(mlp.down_proj)),
    )


def pack_norm(norm: Norm) -> Product:
    """Return the norm as a function of its weights as they are now."""
    weight, eps, size = norm.weight.detach(), norm.eps, norm.weight.shape
    if isinstance(norm, LayerNorm):
        bias = norm.bias.detach()
        return lambda x: F.layer_norm(x, size, weight, bias, eps)
    return lambda x: F.rms_norm(x, size, weight, eps)


def _heads(attention: Attention, rotary: bool) -> list[tuple[Tensor, Tensor | None]]:
    """Return the parts that make queries, keys and values."""
    value = _both(attention.v_proj)
    if rotary:
        size = attention.head_dim
        return [_paired(attention.q_proj, size), _paired(attention.k_proj, size), value]
    weight, bias = _both(attention.q_proj)
    scale = attention.head_dim**-0.5
    query = weight * scale, None if bias is None else bias * scale
    return [query, _both(attention.k_proj), value]


def _joined(parts: Sequence[tuple[Tensor, Tensor | None]], rows: int, packed: bool) -> Product:
    weight = torch.cat([w for w, _ in parts]) if len(parts) > 1 else parts[0][0]
    biases = [b for _, b in parts if b is not None]
    return linear(weight, torch.cat(biases) if biases else None, rows, packed=packed)


def _both(layer: nn.Linear) -> tuple[Tensor, Tensor | None]:
    return layer.weight, layer.bias


def _paired(layer: nn.Linear, head_dim: int) -> tuple[Tensor, Tensor | None]:
    """Reorder a head's rows so that i and i + D/2 are neighbors: one complex number each.

    Queries and keys are reordered alike, which their products do not see.
    """
    bias = None if layer.bias is None else _neighbors(layer.bias, head_dim)
    return _neighbors(layer.weight, head_dim), bias


def _paired_norm(norm: Norm | None) -> Product | None:
    """Return a norm of a head's numbers in their new order."""
    if norm is None:
        return None
    weight, eps, size = norm.weight.detach(), norm.eps, norm.weight.shape
    paired = _neighbors(weight, size[0])
    return lambda x: F.rms_norm(x, size, paired, eps)


def _neighbors(values: Tensor, head_dim: int) -> Tensor:
    heads = values.view(-1, 2, head_dim // 2, *values.shape[1:])
    return heads.transpose(1, 2).reshape(values.shape)
