"""A layer's weights prepared for products of one fixed shape: joined, and packed by oneDNN.

Products with the same input are joined into one. The packed operators are private to PyTorch:
everything that knows them is in this file. Knows no cache.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ostinato.models import Attention, DecoderLayer, LayerNorm, Norm

Product = Callable[[Tensor], Tensor]
Affine = tuple[Tensor, Tensor | None]  # weight (out, in), bias (out,)


def linear(weight: Tensor, bias: Tensor | None, rows: int, *, packed: bool) -> Product:
    """Return the function x -> x W^T + b for `x` (rows, in), contiguous.

    Other numbers of rows work, but not at the best speed. Call it under `torch.inference_mode`.
    `packed` is what `can_pack` returned for this dtype.
    """
    weight = weight.detach()
    bias = None if bias is None else bias.detach()
    if not packed:
        return lambda x: F.linear(x, weight, bias)
    # In bfloat16, unpacked products of 16 rows reach 0.5 to 1 of this speed (docs/log.md).
    ops: Any = torch.ops.mkldnn
    reordered = ops._reorder_linear_weight(weight.contiguous(), rows)
    pointwise = ops._linear_pointwise.default
    return lambda x: pointwise(x, reordered, bias, "none", [], "")


def can_pack(dtype: torch.dtype, rows: int) -> bool:
    """Return whether packed products of `dtype` exist here and are correct, by computing one."""
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    x = torch.linspace(-1, 1, rows * 32).view(rows, 32).to(dtype)
    weight = torch.linspace(1, -1, 48 * 32).view(48, 32).to(dtype)
    try:
        with torch.inference_mode():
            y = linear(weight, None, rows, packed=True)(x)
    except (AttributeError, NotImplementedError, RuntimeError):
        return False
    tolerance = 1e-4 if dtype == torch.float32 else 0.2
    return torch.allclose(y.float(), x.float() @ weight.float().t(), atol=tolerance)


@dataclass
class PackedLayer:
    """The products and norms of one decoder layer."""

    norm1: Product
    qkv: Product
    q_norm: Product | None
    k_norm: Product | None
    out: Product
    norm2: Product
    up: Product  # gate and up in one, or up alone where the family has no gate
    down: Product


def pack_layer(
    layer: DecoderLayer, rows: int, dtype: torch.dtype, *, packed: bool, rotary: bool = True
) -> PackedLayer:
    """Return `layer` for products of `rows` rows in `dtype`.

    Attention divides scores by sqrt(D). With rotary positions the caller's rotation does so;
    without them, the factor is multiplied into the query weights here.
    """

    def joined(*parts: Affine) -> Product:
        return _joined(parts, rows, packed)

    attention, mlp = layer.self_attn, layer.mlp
    inner = [mlp.up_proj] if mlp.gate_proj is None else [mlp.gate_proj, mlp.up_proj]
    return PackedLayer(
        norm1=pack_norm(layer.input_layernorm, dtype),
        qkv=joined(*_heads(attention, rotary, dtype)),
        q_norm=_paired_norm(attention.q_norm, dtype),
        k_norm=_paired_norm(attention.k_norm, dtype),
        out=joined(_affine(attention.o_proj, dtype)),
        norm2=pack_norm(layer.post_attention_layernorm, dtype),
        up=joined(*(_affine(part, dtype) for part in inner)),
        down=joined(_affine(mlp.down_proj, dtype)),
    )


def pack_norm(norm: Norm, dtype: torch.dtype) -> Product:
    """Return the norm as a function of its present weights."""
    weight, eps, size = norm.weight.detach().to(dtype), norm.eps, norm.weight.shape
    if isinstance(norm, LayerNorm):
        bias = norm.bias.detach().to(dtype)
        return lambda x: F.layer_norm(x, size, weight, bias, eps)
    return lambda x: F.rms_norm(x, size, weight, eps)


def _heads(attention: Attention, rotary: bool, dtype: torch.dtype) -> list[Affine]:
    """Return the projections to queries, keys and values."""
    parts = (attention.q_proj, attention.k_proj, attention.v_proj)
    query, key, value = (_affine(part, dtype) for part in parts)
    if rotary:
        size = attention.head_dim
        return [_paired(query, size), _paired(key, size), value]
    weight, bias = query
    scale = attention.head_dim**-0.5
    return [(weight * scale, None if bias is None else bias * scale), key, value]


def _joined(parts: Sequence[Affine], rows: int, packed: bool) -> Product:
    weight = torch.cat([w for w, _ in parts]) if len(parts) > 1 else parts[0][0]
    biases = [b for _, b in parts if b is not None]
    return linear(weight, torch.cat(biases) if biases else None, rows, packed=packed)


def _affine(layer: nn.Linear, dtype: torch.dtype) -> Affine:
    return layer.weight.to(dtype), None if layer.bias is None else layer.bias.to(dtype)


def _paired(part: Affine, head_dim: int) -> Affine:
    """Reorder a head's rows so that i and i + D/2 are neighbors.

    RoPE then is one complex multiplication. Queries and keys are reordered alike, so their
    products stay the same.
    """
    weight, bias = part
    return _neighbors(weight, head_dim), None if bias is None else _neighbors(bias, head_dim)


def _paired_norm(norm: Norm | None, dtype: torch.dtype) -> Product | None:
    """Return a per-head norm (Qwen 3) for the order of `_paired`."""
    if norm is None:
        return None
    weight, eps, size = norm.weight.detach().to(dtype), norm.eps, norm.weight.shape
    paired = _neighbors(weight, size[0])
    return lambda x: F.rms_norm(x, size, paired, eps)


def _neighbors(values: Tensor, head_dim: int) -> Tensor:
    heads = values.view(-1, 2, head_dim // 2, *values.shape[1:])
    return heads.transpose(1, 2).reshape(values.shape)
