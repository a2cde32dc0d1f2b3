"""Matrices of whole numbers in groups of inputs that share a scale. Knows no file and no kernel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from ostinato.arguments import require
from ostinato.errors import ModelError

GROUP = 32  # inputs that share a scale where we round a matrix ourselves
# Shares of a group's range that are tried: a smaller one cuts extremes and rounds the rest finer.
_RANGES = (1.0, 0.95, 0.9)


@dataclass(frozen=True, kw_only=True)
class Groups:
    """A matrix (O, I) of whole numbers.

    A weight is `scale * (number - offset) + minimum`, with a scale and a minimum (0 where None) for
    each `group` of inputs of an output.
    """

    numbers: Tensor
    """uint8 (O, I), below 16 where `bits` is 4"""
    bits: int
    """4 or 8"""
    offset: int
    """0 where there is a minimum"""
    scale: Tensor
    """float16 (O, I // group)"""
    minimum: Tensor | None
    """float16 (O, I // group)"""
    group: int
    """16 or 32 inputs"""

    @property
    def shape(self) -> torch.Size:
        """Outputs and inputs."""
        return self.numbers.shape

    def dequantized(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """Return the weights (O, I), computed in float32 and rounded once, to `dtype`."""
        weights = self.numbers.to(torch.float32).view(self.shape[0], -1, self.group)
        weights.sub_(self.offset).mul_(self.scale[..., None])
        if self.minimum is not None:
            weights.add_(self.minimum[..., None])
        return weights.flatten(1).to(dtype)

    def with_group(self, group: int) -> Groups:
        """Return the same weights in smaller groups, whose scales are repeated."""
        times = self.group // group
        return replace(
            self,
            scale=self.scale.repeat_interleave(times, 1),
            minimum=None if self.minimum is None else self.minimum.repeat_interleave(times, 1),
            group=group,
        )

    def with_offset(self, offset: int) -> Groups:
        """Return the same weights with a larger offset; in 8 bits where 4 do not hold them."""
        if offset == self.offset:
            return self
        numbers = self.numbers + (offset - self.offset)
        bits = 4 if self.bits == 4 and int(numbers.max()) < 16 else 8
        return replace(self, numbers=numbers, bits=bits, offset=offset)

    def with_minimum(self) -> Groups:
        """Return the same weights with a minimum instead of an offset.

        Offsets are powers of two, so this is exact. Raises `ModelError` where float16 overflows.
        """
        if self.minimum is not None:
            return self
        minimum = self.scale * -self.offset
        return replace(self, offset=0, minimum=finite(minimum, "the minimum of a group"))


def in_common(parts: Sequence[Groups]) -> list[Groups]:
    """Return the parts in one format, the narrowest that holds all exactly."""
    group, bits = min(part.group for part in parts), max(part.bits for part in parts)
    parts = [part.with_group(group) for part in parts]
    if any(part.minimum is not None for part in parts):
        parts = [part.with_minimum() for part in parts]
    else:
        offset = max(part.offset for part in parts)
        parts = [part.with_offset(offset) for part in parts]
        bits = max(part.bits for part in parts)
    return [replace(part, bits=bits) for part in parts]


def quantized_in_groups(weight: Tensor, bits: int) -> Groups:
    """Round a matrix (O, I) of floats to whole numbers of 8 or 4 bits, in groups of 32 inputs.

    8 bits have an offset, and a scale from the largest absolute weight of a group (as Q8_0). 4 bits
    have a minimum (as Q4_1), and the range of each group with the smallest squared error.
    """
    require(bits in (4, 8), "bits", "4 or 8", bits, "Use 8 for accuracy, 4 for less memory.")
    fits = weight.size(1) % GROUP == 0
    require(fits, "inputs", f"a multiple of {GROUP}", weight.size(1), "Keep it in 16 bits.")
    weights = weight.detach().to(torch.float32).reshape(weight.size(0), -1, GROUP)
    return _with_offset(weights) if bits == 8 else _with_minimum(weights)


def finite(values: Tensor, what: str) -> Tensor:
    """Return `values`. Raises `ModelError` where one is infinite or no number."""
    if not bool(torch.isfinite(values).all()):
        raise ModelError(
            f"{what} must be a finite number in 16 bits, got another. "
            "The weights are damaged or far too large: get the model again."
        )
    return values


class _Rounding(NamedTuple):
    error: Tensor
    scale: Tensor
    minimum: Tensor


def _with_offset(weights: Tensor) -> Groups:
    scale = (weights.abs().amax(2) / 127).to(torch.float16)
    numbers = _rounded(weights, scale).clamp_(-127, 127).add_(128)
    return Groups(
        numbers=numbers.to(torch.uint8).flatten(1),
        bits=8,
        offset=128,
        scale=finite(scale, "the scale of a group"),
        minimum=None,
        group=GROUP,
    )


def _with_minimum(weights: Tensor) -> Groups:
    low, high = weights.amin(2), weights.amax(2)
    middle, half = (high + low) / 2, (high - low) / 2
    tries = [_within(weights, middle - s * half, 2 * s * half / 15) for s in _RANGES]
    error, scale, minimum = tries[0]
    for other in tries[1:]:
        better = other.error < error
        error = torch.where(better, other.error, error)
        scale = torch.where(better, other.scale, scale)
        minimum = torch.where(better, other.minimum, minimum)
    return Groups(
        numbers=_above(weights, scale, minimum).to(torch.uint8).flatten(1),
        bits=4,
        offset=0,
        scale=finite(scale, "the scale of a group"),
        minimum=finite(minimum, "the minimum of a group"),
        group=GROUP,
    )


def _within(weights: Tensor, minimum: Tensor, scale: Tensor) -> _Rounding:
    """Return the squared error of each group (O, groups), with the scale and minimum of 16 bits."""
    scale, minimum = scale.to(torch.float16), minimum.to(torch.float16)
    numbers = _above(weights, scale, minimum)
    error = (numbers * scale[..., None] + minimum[..., None] - weights).square_().sum(2)
    return _Rounding(error, scale, minimum)


def _above(weights: Tensor, scale: Tensor, minimum: Tensor) -> Tensor:
    return _rounded(weights - minimum[..., None], scale).clamp_(0, 15)


def _rounded(weights: Tensor, scale: Tensor) -> Tensor:
    wide = scale.to(torch.float32)[..., None]
    return torch.where(wide == 0, 0.0, weights / wide).round_()
