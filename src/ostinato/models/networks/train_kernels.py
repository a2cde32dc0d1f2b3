"""RMSNorm, RoPE and attention in the forms that are fast to train, here on CPUs.

The gradients of the first two are written out: fewer passes over memory than step by step.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Return `x` (..., C) over the root of its mean square, times `weight` (C,)."""
    if x.dtype != weight.dtype and weight.dtype == torch.float32:
        x = x.float()  # the product of an autocast
    if x.dtype != torch.float32 or weight.dtype != torch.float32 or not torch.is_grad_enabled():
        return F.rms_norm(x, (x.size(-1),), weight, eps)
    return _Normalize.apply(x, weight, eps)  # type: ignore[no-any-return, no-untyped-call]


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn the pairs (x[i], x[i + D/2]) of each head by the angles; `x` (..., T, D)."""
    return _Turn.apply(x, cos, sin)  # type: ignore[no-any-return, no-untyped-call]


def attend(q: Tensor, k: Tensor, v: Tensor, seen: Tensor | None) -> Tensor:
    """Return the attention (B, H, T, D) of queries over keys; causal where `seen` (T, T) is None.

    Under autocast it stays in float32: on CPUs the backward pass takes seven times as long in
    bfloat16.
    """
    device = q.device.type
    if not torch.is_autocast_enabled(device):
        return F.scaled_dot_product_attention(q, k, v, attn_mask=seen, is_causal=seen is None)
    with torch.autocast(device, enabled=False):
        return F.scaled_dot_product_attention(
            q.float(), k.float(), v.float(), attn_mask=seen, is_causal=seen is None
        )


class _Normalize(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
        scale = (norm * norm / x.size(-1) + eps).rsqrt()
        unit = x * scale
        ctx.save_for_backward(unit, scale, weight)
        scaled: Tensor = unit * weight
        return scaled

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        unit, scale, weight = ctx.saved_tensors
        along = grads[0] * unit
        by_weight = None
        if ctx.needs_input_grad[1]:
            by_weight = along.sum(tuple(range(along.dim() - 1)))
        if not ctx.needs_input_grad[0]:
            return None, by_weight, None
        mean = (along @ weight)[..., None] / unit.size(-1)
        by_x = (grads[0] * weight).addcmul_(unit, mean, value=-1).mul_(scale)
        return by_x, by_weight, None


class _Turn(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        half = x.size(-1) // 2
        signed = torch.cat((-sin[..., :half], sin[..., half:]), -1)
        ctx.save_for_backward(cos, signed)
        return (x * cos).addcmul_(_swapped(x), signed)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        cos, signed = ctx.saved_tensors
        return (grads[0] * cos).add_(_swapped(grads[0] * signed)), None, None


def _swapped(x: Tensor) -> Tensor:
    first, second = x.chunk(2, -1)
    return torch.cat((second, first), -1)
