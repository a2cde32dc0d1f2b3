"""Networks in a fixed shape: blocks of so many samples, so that company changes no bit.

The result of a convolution depends on the shape of the product it is part of, not on the other
samples: every call has the same shape, the last block is padded. Knows no lanes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

BLOCK = 8


class Denoiser(Protocol):
    """A network that predicts the clean image behind x = clean + sigma * noise.

    Images are in [-1, 1]; the label `classes` means no class. `sigma_min` and `sigma_max` bound
    the noise that it knows.
    """

    channels: int
    size: int
    classes: int
    sigma_min: float
    sigma_max: float

    def __call__(self, x: Tensor, sigma: Tensor, label: Tensor | None) -> Tensor:
        """Return the clean prediction (B, C, H, W) for x (B, C, H, W), sigma (B,), label (B,).

        It is kept: its memory must not be written to again.
        """
        ...


@torch.no_grad()
def fixed_batches(function: Callable[..., Tensor], *inputs: Tensor, block: int = BLOCK) -> Tensor:
    """Return `function` of inputs (N, …), computed over blocks of exactly `block` samples.

    The last block is filled up with its last sample. All inputs have the same N, at least 1.
    """
    N = len(inputs[0])
    if block == N:
        return function(*inputs).contiguous()
    made = []
    for start in range(0, N, block):
        parts = [_filled(x[start : start + block], block) for x in inputs]
        made.append(function(*parts)[: N - start])
    return torch.cat(made)


def repeats(function: Callable[..., Tensor], *inputs: Tensor, block: int = BLOCK) -> bool:
    """Tell whether the samples of `inputs` (8, …) give the same bits alone and in another order."""
    together = fixed_batches(function, *inputs, block=block)
    turned = fixed_batches(function, *(x.flip(0) for x in inputs), block=block).flip(0)
    some = [0, 3, 7]
    alone = [fixed_batches(function, *(x[i : i + 1] for x in inputs), block=block) for i in some]
    return torch.equal(together, turned) and torch.equal(together[some], torch.cat(alone))


def _filled(x: Tensor, block: int) -> Tensor:
    if len(x) == block:
        return x
    return torch.cat((x, x[-1:].expand(block - len(x), *x.shape[1:])))
