"""RMSNorm, RoPE and attention in forms that train fast on CPUs.

The gradients of the first two are written by hand, with fewer passes over memory than autograd's.
Knows no modules.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Return `x` (..., C) divided by its root mean square, times `weight` (C,)."""
    if x.dtype != weight.dtype and weight.dtype == torch.float32:
        x = x.float()  # under autocast, products are in bfloat16 and weights in float32
    if x.dtype != torch.float32 or weight.dtype != torch.float32 or not torch.is_grad_enabled():
        return F.rms_norm(x, (x.size(-1),), weight, eps)
    return _Normalize.apply(x, weight, eps)  # type: ignore[no-any-return, no-untyped-call]


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate the pairs (x[i], x[i + D/2]) of each head (RoPE); `x` (..., T, D), tables (T, D)."""
    return _Rotate.apply(x, cos, sin)  # type: ignore[no-any-return, no-untyped-call]


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    """Return the attention (B, H, T, D) of queries over keys; causal where `mask` (T, T) is None.

    Under autocast it stays in float32: on a CPU with AMX, the backward pass took 36 ms in bfloat16
    instead of 5 (docs/log.md).
    """
    device = q.device.type
    if not torch.is_autocast_enabled(device):
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=mask is None)
    with torch.autocast(device, enabled=False):
        return F.scaled_dot_product_attention(
            q.float(), k.float(), v.float(), attn_mask=mask, is_causal=mask is None
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
        # y = w u with u = x s, s = 1 / rms(x): dw = sum(g u), dx = s (g w - u mean(g w u)).
        grad_unit = grads[0] * unit
        grad_weight = None
        if ctx.needs_input_grad[1]:
            grad_weight = grad_unit.sum(tuple(range(grad_unit.dim() - 1)))
        if not ctx.needs_input_grad[0]:
            return None, grad_weight, None
        mean = (grad_unit @ weight)[..., None] / unit.size(-1)
        grad_x = (grads[0] * weight).addcmul_(unit, mean, value=-1).mul_(scale)
        return grad_x, grad_weight, None


class _Rotate(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        half = x.size(-1) // 2
        # The sign goes into the table: negating the half of every head is a slow strided pass.
        signed = torch.cat((-sin[..., :half], sin[..., half:]), -1)
        ctx.save_for_backward(cos, signed)
        return (x * cos).addcmul_(_swapped(x), signed)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        cos, signed = ctx.saved_tensors
        # A rotation's transpose: the halves are swapped after the product instead of before it.
        return (grads[0] * cos).add_(_swapped(grads[0] * signed)), None, None


def _swapped(x: Tensor) -> Tensor:
    first, second = x.chunk(2, -1)
    return torch.cat((second, first), -1)
