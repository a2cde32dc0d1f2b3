"""Matrices in groups hold what their blocks hold, and stay the same weights in every format."""

from __future__ import annotations

import gguf
import numpy as np
import pytest
import torch
from torch import Tensor

from ostinato.errors import InputError, ModelError
from ostinato.models.files.gguf_blocks import FORMATS, read_groups
from ostinato.models.networks.groups import Groups, in_common, quantized_in_groups

OUTPUTS, INPUTS = 24, 512
HALVES = {  # bytes at which a block has a number in 16 bits
    **dict.fromkeys(("Q4_0", "Q5_0", "Q8_0", "IQ4_NL", "IQ4_XS"), (0,)),
    **dict.fromkeys(("Q4_1", "Q5_1", "Q4_K", "Q5_K"), (0, 2)),
    "Q2_K": (80, 82),
    "Q3_K": (108,),
    "Q6_K": (208,),
}
QUANTIZED = ("Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0")  # gguf writes only these
EXACT = (*QUANTIZED, "IQ4_NL")


def weights(seed: int = 0, outputs: int = OUTPUTS) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randn(outputs, INPUTS, generator=generator)
    return drawn * torch.logspace(-4, 1, outputs)[:, None]


def random_blocks(kind: str, seed: int = 0, outputs: int = OUTPUTS) -> Tensor:
    """Return blocks of random bits with scales from 0 and the least of float16 to 4."""
    form = FORMATS[kind]
    rng = np.random.default_rng(seed)
    blocks = rng.integers(0, 256, (outputs * INPUTS // form.weights, form.bytes), dtype=np.uint8)
    for at in HALVES[kind]:
        scales = rng.choice([-1, 1], len(blocks)) * 2.0 ** rng.uniform(-24, 2, len(blocks))
        scales[::7] = 0.0
        blocks[:, at : at + 2] = scales.astype(np.float16)[:, None].view(np.uint8)
    return torch.from_numpy(blocks).reshape(outputs, -1)


def dequantized(blocks: Tensor, kind: str) -> Tensor:
    form = gguf.GGMLQuantizationType[kind]
    return torch.from_numpy(gguf.dequantize(blocks.numpy(), form))


def check_form(groups: Groups) -> None:
    outputs, inputs = groups.shape
    assert groups.numbers.dtype == torch.uint8
    assert int(groups.numbers.max()) < 2**groups.bits
    assert groups.scale.dtype == torch.float16
    assert groups.scale.shape == (outputs, inputs // groups.group)
    assert groups.offset == 0 or groups.minimum is None


@pytest.mark.parametrize("kind", FORMATS)
def test_the_sizes_of_blocks_are_those_of_ggml(kind: str) -> None:
    sizes = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[kind]]
    assert sizes == (FORMATS[kind].weights, FORMATS[kind].bytes)


@pytest.mark.parametrize("kind", QUANTIZED)
def test_quantized_weights_are_read_exactly(kind: str) -> None:
    written = gguf.quantize(weights().numpy(), gguf.GGMLQuantizationType[kind])
    blocks = torch.from_numpy(written)
    groups = read_groups(blocks, kind)
    check_form(groups)
    assert torch.equal(groups.dequantized(), dequantized(blocks, kind))


@pytest.mark.parametrize("kind", EXACT)
def test_random_blocks_are_read_exactly(kind: str) -> None:
    blocks = random_blocks(kind)
    groups = read_groups(blocks, kind)
    check_form(groups)
    assert torch.equal(groups.dequantized(), dequantized(blocks, kind))


@pytest.mark.parametrize("kind", sorted(set(FORMATS) - set(EXACT)))
def test_scales_of_super_blocks_are_rounded_to_16_bits_and_nothing_else(kind: str) -> None:
    blocks = random_blocks(kind)
    groups = read_groups(blocks, kind)
    check_form(groups)
    scaled = groups.scale.abs().float().repeat_interleave(groups.group, 1)
    bound = scaled * (groups.numbers.float() - groups.offset).abs()
    if groups.minimum is not None:
        bound += groups.minimum.abs().float().repeat_interleave(groups.group, 1)
    expected = dequantized(blocks, kind)
    assert torch.all((groups.dequantized() - expected).abs() <= bound * 2**-11 * 1.001)
    assert torch.equal(groups.dequantized() == 0, expected == 0) or groups.minimum is not None


@pytest.mark.parametrize("kind", FORMATS)
def test_a_scale_that_is_no_finite_number_is_refused(kind: str) -> None:
    blocks = random_blocks(kind)
    at = HALVES[kind][0]
    blocks[3, at : at + 2] = torch.tensor([0, 124], dtype=torch.uint8)  # infinity
    with pytest.raises(ModelError, match=f"a scale of type {kind} must be a finite number"):
        read_groups(blocks, kind)


@pytest.mark.parametrize("kind", FORMATS)
def test_weights_are_rounded_once(kind: str) -> None:
    groups = read_groups(random_blocks(kind), kind)
    assert torch.equal(groups.dequantized(torch.bfloat16), groups.dequantized().to(torch.bfloat16))


@pytest.mark.parametrize("first", FORMATS)
@pytest.mark.parametrize("second", FORMATS)
def test_matrices_of_any_two_formats_have_one_in_common(first: str, second: str) -> None:
    parts = [
        read_groups(random_blocks(kind, seed, outputs), kind)
        for seed, (kind, outputs) in enumerate(((first, 24), (second, 8)))
    ]
    made = in_common(parts)
    for before, after in zip(parts, made, strict=True):
        check_form(after)
        # A minimum instead of an offset gives another float32 rounding, of the same weight.
        found, expected = after.dequantized(), before.dequantized()
        torch.testing.assert_close(found, expected, rtol=2**-20, atol=0)
        assert after.group == min(part.group for part in parts)
        if first == second:
            assert after.bits == before.bits
    one, other = made
    assert (one.bits, one.offset, one.minimum is None) == (
        other.bits,
        other.offset,
        other.minimum is None,
    )


def test_four_bits_with_other_offsets_stay_four_bits() -> None:
    parts = [read_groups(random_blocks(kind), kind) for kind in ("Q4_0", "Q3_K")]
    for made in in_common(parts):
        assert (made.bits, made.offset, made.group) == (4, 8, 16)


@pytest.mark.parametrize(("bits", "steps"), [(8, 127), (4, 7.5)])
def test_rounding_moves_a_weight_by_at_most_half_a_step(bits: int, steps: float) -> None:
    matrix = weights()
    matrix[5] = 0.0
    matrix[6] = 3.0
    groups = quantized_in_groups(matrix, bits)
    check_form(groups)
    assert groups.bits == bits
    error = (groups.dequantized() - matrix).abs().view(OUTPUTS, -1, 32).amax(2)
    largest = matrix.abs().view(OUTPUTS, -1, 32).amax(2)
    # A cut extreme moves by up to 5% of the range; float16 rounds the scale and the minimum.
    cut = 0.1 if bits == 4 else 0.0
    assert torch.all(error <= largest * (0.5 / steps + cut + 2**-9) + steps * 2**-25)
    assert not groups.dequantized()[5].any()


def test_four_bits_are_closer_than_those_of_gguf() -> None:
    matrix = weights()
    form = gguf.GGMLQuantizationType.Q4_1
    theirs = gguf.dequantize(gguf.quantize(matrix.numpy(), form), form)
    ours = quantized_in_groups(matrix, 4).dequantized()
    assert (ours - matrix).norm() < 0.99 * np.linalg.norm(theirs - matrix.numpy())


def test_eight_bits_are_those_of_gguf_within_a_step() -> None:
    matrix = weights()
    form = gguf.GGMLQuantizationType.Q8_0
    theirs = torch.from_numpy(gguf.dequantize(gguf.quantize(matrix.numpy(), form), form))
    ours = quantized_in_groups(matrix, 8).dequantized()
    assert float((ours - matrix).norm()) <= 1.0001 * float((theirs - matrix).norm())


def test_a_matrix_that_has_no_whole_groups_is_refused() -> None:
    with pytest.raises(InputError, match="inputs must be a multiple of 32, got 48"):
        quantized_in_groups(torch.ones(4, 48), 8)
    with pytest.raises(InputError, match="bits must be 4 or 8, got 6"):
        quantized_in_groups(torch.ones(4, 64), 6)
