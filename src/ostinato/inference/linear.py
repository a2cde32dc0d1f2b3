"""Linear layers for products of one fixed shape: packed by oneDNN where it can be, else plain.

The packed operators are private to PyTorch: everything that knows them is in this file.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

Product = Callable[[Tensor], Tensor]


def linear(weight: Tensor, bias: Tensor | None, rows: int, *, packed: bool) -> Product:
    """Return the function x -> x W^T + b for `x` (rows, in), contiguous.

    Other numbers of rows work too, but not at the best speed. To be called under
    `torch.inference_mode`. `packed` is what `can_pack` said of this type.
    """
    weight = weight.detach()
    bias = None if bias is None else bias.detach()
    if not packed:
        return lambda x: F.linear(x, weight, bias)
    ops: Any = torch.ops.mkldnn
    reordered = ops._reorder_linear_weight(weight.contiguous(), rows)
    pointwise = ops._linear_pointwise.default
    return lambda x: pointwise(x, reordered, bias, "none", [], "")


def can_pack(dtype: torch.dtype, rows: int) -> bool:
    """Tell whether packed products exist here for `dtype`, and are right, by making one."""
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    x = torch.linspace(-1, 1, rows * 32).view(rows, 32).to(dtype)
    weight = torch.linspace(1, -1, 48 * 32).view(48, 32).to(dtype)
    try:
        with torch.inference_mode():
            made = linear(weight, None, rows, packed=True)(x)
    except (AttributeError, NotImplementedError, RuntimeError):
        return False
    tolerance = 1e-4 if dtype == torch.float32 else 0.2
    return torch.allclose(made.float(), x.float() @ weight.float().t(), atol=tolerance)
