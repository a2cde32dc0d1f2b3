"""Batch-invariant inference: a network runs on blocks of a fixed number of samples.

The bits of a convolution depend on the shape of the whole product, but not on the other samples in
it. So every call has the same shape, and the last block is padded. Knows no lanes.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn

from ostinato.models import (
    CPU,
    device_of,
    is_known_code,
    machine,
    network_key,
    recall,
    remember,
    source_hash,
)

BLOCK = 8  # samples


class ImageNetwork(Protocol):
    """A network that makes images of a size, of `classes` classes or of none (0)."""

    channels: int
    size: int
    classes: int


class Denoiser(ImageNetwork, Protocol):
    """A network that predicts the clean image behind x = clean + sigma * noise.

    Images are in [-1, 1]; the label `classes` means no class. `sigma_min` and `sigma_max` are the
    noise levels that it was trained for.
    """

    sigma_min: float
    sigma_max: float

    def __call__(self, x: Tensor, sigma: Tensor, label: Tensor | None) -> Tensor:
        """Return the clean prediction (B, C, H, W) for x (B, C, H, W), sigma (B,), label (B,).

        The caller keeps the tensor: the network must not write to its memory again.
        """
        ...


@torch.no_grad()
def fixed_batches(function: Callable[..., Tensor], *inputs: Tensor, block: int = BLOCK) -> Tensor:
    """Return `function` of inputs (N, …), computed in blocks of exactly `block` samples.

    The last block is padded with its last sample. All inputs have the same N, at least 1.
    """
    N = len(inputs[0])
    if block == N:
        return function(*inputs).contiguous()  # the common case, without copies
    outputs = []
    for start in range(0, N, block):
        parts = [_padded(x[start : start + block], block) for x in inputs]
        outputs.append(function(*parts)[: N - start])
    return torch.cat(outputs)


def is_batch_invariant(
    function: Callable[..., Tensor], *inputs: Tensor, block: int = BLOCK
) -> bool:
    """Return whether samples of `inputs` (8, …) give the same bits alone and in another order.

    A library may choose a kernel whose sums depend on the neighbors: only a trial shows it.
    """
    together = fixed_batches(function, *inputs, block=block)
    reversed_ = fixed_batches(function, *(x.flip(0) for x in inputs), block=block).flip(0)
    some = [0, 3, 7]
    alone = [fixed_batches(function, *(x[i : i + 1] for x in inputs), block=block) for i in some]
    return torch.equal(together, reversed_) and torch.equal(together[some], torch.cat(alone))


def remembered_self_test(network: object, test: Callable[[], bool], *, block: int = BLOCK) -> bool:
    """Return the result of a self-test of a network; one of ours is tested once per machine."""
    if not isinstance(network, nn.Module) or not is_known_code(type(network)):
        return test()
    if device_of(network) != CPU:
        return test()
    key = {
        "machine": machine(),
        "code": source_hash(Path(__file__).parent),
        "network": network_key(network, network.config),
        "block": block,
    }
    known = recall("self-test", key)
    if not isinstance(known, bool):
        known = test()
        remember("self-test", key, known)
    return known


def _padded(x: Tensor, block: int) -> Tensor:
    if len(x) == block:
        return x
    # A real sample, not zeros: networks take the logarithm of the noise level.
    return torch.cat((x, x[-1:].expand(block - len(x), *x.shape[1:])))
