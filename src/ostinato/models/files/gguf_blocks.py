"""The quantized blocks of a GGUF file as whole numbers in groups, exactly as the file has them.

The formats are those of ggml (`ggml-common.h`), named as there. Knows no file: it gets bytes.

The scales of "K" types (and of IQ4_XS) are products of a number in 16 bits and one in at most 8,
which we round to float16. This changes `scale * number` and the minimum by at most 2^-11 of
themselves. No scale becomes 0: below its normal range, float16 holds every such product.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ostinato.models.networks.groups import Groups, finite

_CODEBOOK = (-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113)  # IQ4_NL

# The numbers (blocks, weights) of blocks (blocks, bytes), their scales and their minimums.
_Read = Callable[[Tensor], tuple[Tensor, Tensor, Tensor | None]]


@dataclass(frozen=True, kw_only=True)
class BlockFormat:
    """How a type of ggml stores weights: see `Groups` for `bits`, `offset` and `group`."""

    weights: int
    """weights of a block"""
    bytes: int
    """bytes of a block"""
    bits: int
    offset: int = 0
    group: int = 32
    read: _Read

    @property
    def held_bytes(self) -> float:
        """The bytes of a weight as `Groups` in memory, 4-bit numbers two to a byte."""
        halves = 1 if self.offset else 2  # groups have an offset for all, or a minimum each
        return self.bits / 8 + 2 * halves / self.group


def read_groups(blocks: Tensor, kind: str) -> Groups:
    """Return the matrix (O, I) of raw `blocks`, uint8 (O, bytes of a row), of a type in `FORMATS`.

    Raises `ModelError` for a scale that is no finite number in 16 bits.
    """
    form = FORMATS[kind]
    outputs = blocks.size(0)
    numbers, scale, minimum = form.read(blocks.reshape(-1, form.bytes))
    return Groups(
        numbers=numbers.reshape(outputs, -1),
        bits=form.bits,
        offset=form.offset,
        scale=finite(scale, f"a scale of type {kind}").reshape(outputs, -1),
        minimum=(
            None
            if minimum is None
            else finite(minimum, f"a minimum of type {kind}").reshape(outputs, -1)
        ),
        group=form.group,
    )


def _q4_0(blocks: Tensor) -> tuple[Tensor, Tensor, None]:
    return _fields(blocks[:, 2:], 16, 4), _half(blocks, 0), None


def _q4_1(blocks: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return _fields(blocks[:, 4:], 16, 4), _half(blocks, 0), _half(blocks, 2)


def _q5_0(blocks: Tensor) -> tuple[Tensor, Tensor, None]:
    high, low = _fields(blocks[:, 2:6], 1, 1), _fields(blocks[:, 6:], 16, 4)
    return _joined_bits(low, high, 4), _half(blocks, 0), None


def _q5_1(blocks: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    high, low = _fields(blocks[:, 4:8], 1, 1), _fields(blocks[:, 8:], 16, 4)
    return _joined_bits(low, high, 4), _half(blocks, 0), _half(blocks, 2)


def _q8_0(blocks: Tensor) -> tuple[Tensor, Tensor, None]:
    return blocks[:, 2:] ^ 128, _half(blocks, 0), None  # the sign bit turned: int8 + 128


def _q2_k(blocks: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    scales = blocks[:, :16]
    scale = _product(_half(blocks, 80), scales & 15)
    minimum = _product(_half(blocks, 82), scales >> 4)
    return _fields(blocks[:, 16:80], 32, 2), scale, -minimum


def _q3_k(blocks: Tensor) -> tuple[Tensor, Tensor, None]:
    high, low = _fields(blocks[:, :32], 32, 1), _fields(blocks[:, 32:96], 32, 2)
    scales = _joined_bits(_fields(blocks[:, 96:104], 8, 4), _fields(blocks[:, 104:108], 4, 2), 4)
    scale = _product(_half(blocks, 108), scales.to(torch.int8) - 32)
    return _joined_bits(low, high, 2), scale, None


def _q4_k(blocks: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    scale, minimum = _scales_and_minimums(blocks)
    return _fields(blocks[:, 16:], 32, 4), scale, minimum


def _q5_k(blocks: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    scale, minimum = _scales_and_minimums(blocks)
    high, low = _fields(blocks[:, 16:48], 32, 1), _fields(blocks[:, 48:], 32, 4)
    return _joined_bits(low, high, 4), scale, minimum


def _q6_k(blocks: Tensor) -> tuple[Tensor, Tensor, None]:
    low, high = _fields(blocks[:, :128], 64, 4), _fields(blocks[:, 128:192], 32, 2)
    scales = blocks[:, 192:208].contiguous().view(torch.int8)
    return _joined_bits(low, high, 4), _product(_half(blocks, 208), scales), None


def _iq4_nl(blocks: Tensor) -> tuple[Tensor, Tensor, None]:
    return _codes(_fields(blocks[:, 2:], 16, 4)), _half(blocks, 0), None


def _iq4_xs(blocks: Tensor) -> tuple[Tensor, Tensor, None]:
    low, high = _fields(blocks[:, 4:8], 1, 4), _fields(blocks[:, 2:4], 1, 2)
    scales = _joined_bits(low, high, 4).to(torch.int8) - 32
    return _codes(_fields(blocks[:, 8:], 16, 4)), _product(_half(blocks, 0), scales), None


def _scales_and_minimums(blocks: Tensor) -> tuple[Tensor, Tensor]:
    """Return those of a Q4_K or Q5_K block: eight pairs of 6 bits in 12 bytes."""
    first, second, third = blocks[:, 4:8], blocks[:, 8:12], blocks[:, 12:16]
    scales = torch.cat((first & 63, (third & 15) | ((first >> 2) & 48)), 1)
    minimums = torch.cat((second & 63, (third >> 4) | ((second >> 2) & 48)), 1)
    return _product(_half(blocks, 0), scales), -_product(_half(blocks, 2), minimums)


def _fields(packed: Tensor, width: int, bits: int) -> Tensor:
    """Return the fields of `bits` bits of each byte, (n, bytes) to (n, bytes * 8 // bits).

    Each `width` bytes hold first their lowest fields, then their next ones.
    """
    n, count = packed.shape
    runs, parts = packed.view(n, -1, width), 8 // bits
    out = torch.empty((n, count // width, parts, width), dtype=torch.uint8, device=packed.device)
    for i in range(parts):
        part = out[:, :, i]
        torch.bitwise_right_shift(runs, i * bits, out=part)
        if i + 1 < parts:  # nothing lies above the last field
            part.bitwise_and_((1 << bits) - 1)
    return out.flatten(1)


def _joined_bits(low: Tensor, high: Tensor, bits: int) -> Tensor:
    """Return `low` with `high` above its `bits` bits, in the memory of `low`."""
    return low.bitwise_or_(high.bitwise_left_shift_(bits))


def _codes(fields: Tensor) -> Tensor:
    codebook = torch.tensor(_CODEBOOK, device=fields.device) + 128
    return codebook.to(torch.uint8)[fields.int()]


def _half(blocks: Tensor, start: int) -> Tensor:
    """Return the float16 number (n, 1) at byte `start` of each block."""
    return blocks[:, start : start + 2].contiguous().view(torch.float16)


def _product(factor: Tensor, numbers: Tensor) -> Tensor:
    return (factor.to(torch.float32) * numbers).to(torch.float16)


FORMATS: Mapping[str, BlockFormat] = {
    "Q4_0": BlockFormat(weights=32, bytes=18, bits=4, offset=8, read=_q4_0),
    "Q4_1": BlockFormat(weights=32, bytes=20, bits=4, read=_q4_1),
    "Q5_0": BlockFormat(weights=32, bytes=22, bits=8, offset=16, read=_q5_0),
    "Q5_1": BlockFormat(weights=32, bytes=24, bits=8, read=_q5_1),
    "Q8_0": BlockFormat(weights=32, bytes=34, bits=8, offset=128, read=_q8_0),
    "Q2_K": BlockFormat(weights=256, bytes=84, bits=4, group=16, read=_q2_k),
    "Q3_K": BlockFormat(weights=256, bytes=110, bits=4, offset=4, group=16, read=_q3_k),
    "Q4_K": BlockFormat(weights=256, bytes=144, bits=4, read=_q4_k),
    "Q5_K": BlockFormat(weights=256, bytes=176, bits=8, read=_q5_k),
    "Q6_K": BlockFormat(weights=256, bytes=210, bits=8, offset=32, group=16, read=_q6_k),
    "IQ4_NL": BlockFormat(weights=32, bytes=18, bits=8, offset=128, read=_iq4_nl),
    "IQ4_XS": BlockFormat(weights=256, bytes=136, bits=8, offset=128, read=_iq4_xs),
}
"""The types that are read without widening them, by ggml's names."""
