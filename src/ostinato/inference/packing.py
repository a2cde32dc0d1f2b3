"""A layer's weights prepared for products of one fixed shape: joined, and packed by oneDNN.

Products with the same input are joined into one. The packed operators are private to PyTorch:
everything that knows them is in this file. Knows no cache.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ostinato.inference.prepared import Place
from ostinato.models import Attention, DecoderLayer, LayerNorm, LoraLinear, Norm

Product = Callable[[Tensor], Tensor]


class Affine(NamedTuple):
    """A weight (out, in) and a bias (out,); `own`: the weight is a copy, not the network's."""

    weight: Tensor
    bias: Tensor | None
    own: bool


class Held:
    """A tensor that products read. A copy takes new values in place, so that its address stays."""

    def __init__(self, value: Tensor, *, own: bool) -> None:
        self.tensor, self._own = value, own

    def take(self, value: Tensor, *, own: bool) -> None:
        """Take other values; `own` says that they are a copy, not the network's."""
        if self._own and self.tensor.shape == value.shape:
            self.tensor.copy_(value)
        else:
            self.tensor, self._own = value, own


class Linear:
    """The function x -> x W^T + b for `x` (rows, in), contiguous; it takes other weights.

    Other numbers of rows work, but not at the best speed. Call it under `torch.inference_mode`.
    `packed` is what `can_pack` returned for this dtype.
    """

    def __init__(self, part: Affine, rows: int, *, packed: bool) -> None:
        self._rows, self._packed = rows, packed
        self._weight = Held(part.weight, own=part.own)
        self._bias = None if part.bias is None else part.bias.clone()
        self._pack()

    def __call__(self, x: Tensor) -> Tensor:
        """Return the product (rows, out)."""
        return self._multiply(x)

    def take(self, part: Affine) -> None:
        """Take other weights; unpacked copies keep their addresses."""
        self._weight.take(part.weight, own=part.own)
        if self._bias is not None and part.bias is not None:
            self._bias.copy_(part.bias)
        self._pack()

    @property
    def address(self) -> int:
        """Where an unpacked weight is."""
        return self._weight.tensor.data_ptr()

    def _pack(self) -> None:
        weight, bias = self._weight.tensor, self._bias
        if not self._packed:
            self._multiply: Product = lambda x: F.linear(x, weight, bias)
            return
        # In bfloat16, unpacked products of 16 rows reach 0.5 to 1 of this speed (docs/log.md).
        ops: Any = torch.ops.mkldnn
        reordered = ops._reorder_linear_weight(weight.contiguous(), self._rows)
        pointwise = ops._linear_pointwise.default
        self._multiply = lambda x: pointwise(x, reordered, bias, "none", [], "")
        self._weight = Held(weight[:0], own=False)  # the packed copy is all that is read


def can_pack(dtype: torch.dtype, rows: int) -> bool:
    """Return whether packed products of `dtype` exist here and are correct, by computing one."""
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    x = torch.linspace(-1, 1, rows * 32).view(rows, 32).to(dtype)
    weight = torch.linspace(1, -1, 48 * 32).view(48, 32).to(dtype)
    try:
        with torch.inference_mode():
            y = Linear(Affine(weight, None, True), rows, packed=True)(x)
    except (AttributeError, NotImplementedError, RuntimeError):
        return False
    tolerance = 1e-4 if dtype == torch.float32 else 0.2
    return torch.allclose(y.float(), x.float() @ weight.float().t(), atol=tolerance)


class PackedNorm:
    """A norm with its own copy of the weights; `head_dim` gives them the order of `_paired`."""

    def __init__(self, norm: Norm, dtype: torch.dtype, head_dim: int | None = None) -> None:
        self._dtype, self._head_dim = dtype, head_dim
        self._size, self._eps = norm.weight.shape, norm.eps
        self._weight = self._ordered(norm).clone()
        self._bias = norm.bias.detach().to(dtype).clone() if isinstance(norm, LayerNorm) else None

    def __call__(self, x: Tensor) -> Tensor:
        """Return `x` normalized over its last axis."""
        if self._bias is not None:
            return F.layer_norm(x, self._size, self._weight, self._bias, self._eps)
        return F.rms_norm(x, self._size, self._weight, self._eps)

    def take(self, norm: Norm) -> None:
        """Take the present weights of the norm."""
        self._weight.copy_(self._ordered(norm))
        if self._bias is not None and isinstance(norm, LayerNorm):
            self._bias.copy_(norm.bias.detach())

    def _ordered(self, norm: Norm) -> Tensor:
        weight = norm.weight.detach().to(self._dtype)
        return weight if self._head_dim is None else _neighbors(weight, self._head_dim)


class PackedLayer:
    """The products and norms of one decoder layer, for products of `rows` rows in `dtype`.

    Attention divides scores by sqrt(D). With rotary positions the caller's rotation does so;
    without them, the factor is multiplied into the query weights here.
    """

    def __init__(
        self,
        layer: DecoderLayer,
        rows: int,
        dtype: torch.dtype,
        *,
        packed: bool,
        rotary: bool = True,
    ) -> None:
        self._dtype, self._rotary = dtype, rotary
        attention = layer.self_attn
        linear = partial(Linear, rows=rows, packed=packed)
        self.norm1 = PackedNorm(layer.input_layernorm, dtype)
        self.qkv = linear(self._heads(attention))
        self.q_norm = _head_norm(attention.q_norm, dtype)
        self.k_norm = _head_norm(attention.k_norm, dtype)
        self.out = linear(affine(attention.o_proj, dtype))
        self.norm2 = PackedNorm(layer.post_attention_layernorm, dtype)
        self.up = linear(self._inner(layer))  # gate and up in one, or up alone without a gate
        self.down = linear(affine(layer.mlp.down_proj, dtype))

    @property
    def products(self) -> tuple[Linear, ...]:
        """The products of weights."""
        return self.qkv, self.out, self.up, self.down

    def places(self, name: str, layer: DecoderLayer) -> Iterator[Place]:
        """Yield where the weights of a layer are, under names that begin with `name`."""
        attention, mlp, dtype = layer.self_attn, layer.mlp, self._dtype
        heads = [attention.q_proj, attention.k_proj, attention.v_proj]
        inner = [part for part in (mlp.gate_proj, mlp.up_proj) if part is not None]

        def product(to: Linear, key: str, of: Sequence[nn.Linear], make: Make) -> Place:
            return Place(f"{name}.{key}", of, lambda: to.take(make()))

        yield norm_place(f"{name}.norm1", self.norm1, layer.input_layernorm)
        yield product(self.qkv, "qkv", heads, lambda: self._heads(attention))
        for key, to, norm in (
            ("q_norm", self.q_norm, attention.q_norm),
            ("k_norm", self.k_norm, attention.k_norm),
        ):
            if to is not None and norm is not None:
                yield norm_place(f"{name}.{key}", to, norm)
        yield product(self.out, "out", [attention.o_proj], lambda: affine(attention.o_proj, dtype))
        yield norm_place(f"{name}.norm2", self.norm2, layer.post_attention_layernorm)
        yield product(self.up, "up", inner, lambda: self._inner(layer))
        yield product(self.down, "down", [mlp.down_proj], lambda: affine(mlp.down_proj, dtype))

    def _inner(self, layer: DecoderLayer) -> Affine:
        parts = (layer.mlp.gate_proj, layer.mlp.up_proj)
        return _joined([affine(part, self._dtype) for part in parts if part is not None])

    def _heads(self, attention: Attention) -> Affine:
        """Return the projections to queries, keys and values."""
        parts = (attention.q_proj, attention.k_proj, attention.v_proj)
        query, key, value = (affine(part, self._dtype) for part in parts)
        if self._rotary:
            size = attention.head_dim
            return _joined([_paired(query, size), _paired(key, size), value])
        scale = attention.head_dim**-0.5
        bias = None if query.bias is None else query.bias * scale
        return _joined([Affine(query.weight * scale, bias, True), key, value])


Make = Callable[[], Affine]


def norm_place(name: str, to: PackedNorm, norm: Norm) -> Place:
    """Return the place of a norm's weights."""
    return Place(name, [norm], lambda: to.take(norm))


def affine(layer: nn.Linear, dtype: torch.dtype) -> Affine:
    """Return a layer's weight and bias in `dtype`, the update of an adapter included."""
    held = layer.weight
    own = isinstance(layer, LoraLinear) or not isinstance(held, nn.Parameter)
    weight = (layer.merged_weight() if isinstance(layer, LoraLinear) else held).detach()
    bias = None if layer.bias is None else layer.bias.detach().to(dtype)
    return Affine(weight.to(dtype), bias, own or weight.dtype != dtype)


def _joined(parts: Sequence[Affine]) -> Affine:
    if len(parts) == 1:
        return parts[0]
    biases = [part.bias for part in parts if part.bias is not None]
    weight = torch.cat([part.weight for part in parts])
    return Affine(weight, torch.cat(biases) if biases else None, True)


def _paired(part: Affine, head_dim: int) -> Affine:
    """Reorder a head's rows so that i and i + D/2 are neighbors.

    RoPE then is one complex multiplication. Queries and keys are reordered alike, so their
    products stay the same.
    """
    bias = None if part.bias is None else _neighbors(part.bias, head_dim)
    return Affine(_neighbors(part.weight, head_dim), bias, part.own)


def _head_norm(norm: Norm | None, dtype: torch.dtype) -> PackedNorm | None:
    """Return a per-head norm (Qwen 3) for the order of `_paired`."""
    return None if norm is None else PackedNorm(norm, dtype, head_dim=norm.weight.size(0))


def _neighbors(values: Tensor, head_dim: int) -> Tensor:
    heads = values.view(-1, 2, head_dim // 2, *values.shape[1:])
    return heads.transpose(1, 2).reshape(values.shape)
