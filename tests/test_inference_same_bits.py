"""A row gives the same bits in any batch, and the numbers of the plain network."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

import pytest
import torch

from ostinato.errors import InputError
from ostinato.inference import Backend, CompiledBackend, FixedShapeBackend, has_compiler
from ostinato.inference.packing import can_pack
from ostinato.models import Llama, LlamaConfig

SHAPES = {
    "grouped": LlamaConfig(
        vocab_size=96,
        hidden_size=96,
        intermediate_size=160,
        num_hidden_layers=2,
        num_attention_heads=6,
        num_key_value_heads=2,
        head_dim=16,
        tie_word_embeddings=True,
        initializer_range=0.2,
    ),
    "whole": LlamaConfig(
        vocab_size=67,
        hidden_size=40,
        intermediate_size=72,
        num_hidden_layers=2,
        num_attention_heads=5,
        num_key_value_heads=5,
        head_dim=8,
        attention_bias=True,
        mlp_bias=True,
        initializer_range=0.2,
        rope_scaling={
            "rope_type": "llama3",
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 128,
        },
    ),
    "smollm2": LlamaConfig(
        vocab_size=512,
        hidden_size=576,
        intermediate_size=1536,
        num_hidden_layers=1,
        num_attention_heads=9,
        num_key_value_heads=3,
        head_dim=64,
        initializer_range=0.05,
    ),
    "gpt2": LlamaConfig.from_dict(
        {
            "model_type": "gpt2",
            "vocab_size": 90,
            "n_embd": 60,
            "n_layer": 2,
            "n_head": 5,
            "n_positions": 512,
            "initializer_range": 0.2,
        }
    ),
    "qwen3": LlamaConfig(
        model_type="qwen3",
        vocab_size=80,
        hidden_size=48,
        intermediate_size=80,
        num_hidden_layers=3,
        num_attention_heads=6,
        num_key_value_heads=2,
        head_dim=24,
        sliding_window=70,
        layer_types=("full_attention", "sliding_attention", "sliding_attention"),
        initializer_range=0.2,
    ),
}
LENGTHS = [1, 7, 63, 64, 65, 100, 127, 129, 190, 200, 257, 300, 320, 333, 385, 400]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def sequence(key: int, length: int, vocab: int) -> list[int]:
    drawn = random.Random(key)
    return [drawn.randrange(vocab) for _ in range(length)]


def network(shape: str) -> Llama:
    model = Llama(SHAPES[shape], seed=1).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.endswith("bias"):
                weight.normal_(0, 0.1, generator=torch.Generator().manual_seed(2))
    return model


def packings() -> list[bool]:
    return [False, True] if can_pack(torch.float32, 16) else [False]


def check_numbers(inference: Backend, model: Llama) -> None:
    """Compare with the plain network: a prompt in a slot, then tokens after it."""
    tokens = sequence(0, 200, model.config.vocab_size)
    inference.prefill(1, tokens[:150])
    hidden = inference.feed([(1, tokens[p], p) for p in range(150, 200)])
    with torch.no_grad():
        expected = model(torch.tensor([tokens]))[0, 150:]
        torch.testing.assert_close(hidden, expected, rtol=1e-4, atol=1e-4)
        logits = inference.logits(hidden)
        torch.testing.assert_close(logits, model.logits(expected), rtol=1e-4, atol=1e-4)


def check_batches(inference: Backend, sizes: tuple[int, ...]) -> None:
    """Compare 64 rows, one in each slot: alone, and in batches of these sizes."""
    V = inference.vocab_size
    lanes = [LENGTHS[i % len(LENGTHS)] for i in range(64)]
    rows = [(slot, slot % V, length) for slot, length in enumerate(lanes)]
    for slot, length in enumerate(lanes):
        inference.prefill(slot, sequence(slot, length, V))

    def fed(batch: list[int]) -> dict[int, torch.Tensor]:
        hidden = inference.feed([rows[i] for i in batch])
        logits = inference.logits(hidden)
        return {i: torch.cat((hidden[n], logits[n])) for n, i in enumerate(batch)}

    alone: dict[int, torch.Tensor] = {}
    for i in range(64):
        alone |= fed([i])
    shuffled = random.Random(5).sample(range(64), 64)
    for size in sizes:
        for order in (list(range(64)), shuffled):
            for start in range(0, 64, size):
                for i, found in fed(order[start : start + size]).items():
                    assert torch.equal(found, alone[i]), (size, i, lanes[i])


@pytest.mark.parametrize("packed", packings())
@pytest.mark.parametrize("shape", SHAPES)
def test_hidden_states_and_logits_are_those_of_the_plain_network(shape: str, packed: bool) -> None:
    model = network(shape)
    check_numbers(FixedShapeBackend(model, 2, length=64, packed=packed), model)


@pytest.mark.parametrize("packed", packings())
@pytest.mark.parametrize("shape", SHAPES)
def test_a_row_gives_the_same_bits_in_any_batch(shape: str, packed: bool) -> None:
    inference = FixedShapeBackend(network(shape), 64, length=512, packed=packed)
    check_batches(inference, (4, 16, 64))


@pytest.mark.parametrize("shape", SHAPES)
def test_later_positions_of_a_slot_never_count(shape: str) -> None:
    model = network(shape)
    inference = FixedShapeBackend(model, 4, length=256)
    inference.prefill(1, sequence(1, 90, model.config.vocab_size))
    before = inference.feed([(1, 5, 90)])
    with torch.inference_mode():
        for keys, values in zip(inference._cache.keys, inference._cache.values, strict=True):
            keys[1, ..., 91:] = values[1, :, 91:] = 1e16
            keys[2:] = values[2:] = -1e16
    assert torch.equal(inference.feed([(1, 5, 90)]), before)


compiled_too = pytest.mark.parametrize(
    "make",
    [
        FixedShapeBackend,
        pytest.param(
            CompiledBackend,
            marks=pytest.mark.skipif(not has_compiler(), reason="there is no C++ compiler"),
        ),
    ],
)


@compiled_too
def test_an_exploded_neighbor_never_counts(make: Callable[[Llama, int], Backend]) -> None:
    model = network("grouped")
    with torch.no_grad():
        model.model.embed_tokens.weight[7] = float("nan")
        model.model.embed_tokens.weight[8] = float("inf")
    inference = make(model, 2)
    inference.prefill(0, sequence(1, 70, 7))
    before = inference.feed([(0, 1, 70)])
    exploded = inference.feed([(0, 7, 71), (0, 8, 72), (1, 7, 0)])
    assert exploded.isnan().any(dim=1).all()
    assert torch.equal(inference.feed([(0, 1, 70)]), before)


@compiled_too
def test_rewinding_gives_the_same_bits(
    make: Callable[[Llama, int], Backend],
) -> None:
    model = network("grouped")
    tokens = sequence(3, 120, model.config.vocab_size)
    inference = make(model, 3)
    inference.prefill(2, tokens[:80])
    first = torch.cat([inference.feed([(2, tokens[p], p)]) for p in range(80, 120)])
    inference.feed([(2, 1, p) for p in range(90, 120)])
    again = torch.cat([inference.feed([(2, tokens[p], p)]) for p in range(90, 120)])
    assert torch.equal(again, first[10:])


@compiled_too
def test_no_rows_are_no_work(make: Callable[[Llama, int], Backend]) -> None:
    inference = make(network("grouped"), 2)
    hidden = inference.feed([])
    assert hidden.shape == (0, 96)
    assert inference.logits(hidden).shape == (0, 96)


def test_restoring_many_positions_at_once_gives_the_same_bits() -> None:
    model = network("grouped")
    tokens = sequence(3, 140, model.config.vocab_size)
    inference = FixedShapeBackend(model, 20)
    inference.prefill(2, tokens[:80])
    first = torch.cat([inference.feed([(2, tokens[p], p)]) for p in range(80, 140)])
    inference.prefill(11, tokens[:80])
    shuffled = random.Random(1).sample(range(80, 140), 60)
    at_once = inference.feed([(11, tokens[p], p) for p in shuffled])
    assert torch.equal(at_once, first[torch.tensor(shuffled) - 80])


def test_a_copied_prefix_gives_the_same_bits() -> None:
    model = network("grouped")
    tokens = sequence(4, 150, model.config.vocab_size)
    inference = FixedShapeBackend(model, 6)
    inference.prefill(0, tokens)
    inference.copy(0, 5, 128)
    inference.prefill(5, tokens[128:], start=128)
    rows = inference.feed([(0, 9, 150), (5, 9, 150)])
    assert torch.equal(rows[0], rows[1])


def test_growing_changes_no_bits() -> None:
    model = network("grouped")
    tokens = sequence(4, 70, model.config.vocab_size)
    small, large = FixedShapeBackend(model, 2, length=64), FixedShapeBackend(model, 2, length=1024)
    for inference in (small, large):
        inference.prefill(0, tokens[:60])
    for p in range(60, 70):
        row = [(0, tokens[p], p)]
        assert torch.equal(small.feed(row), large.feed(row))


def test_a_block_is_part_of_the_bits_and_still_right() -> None:
    model = network("smollm2")
    tokens = sequence(6, 40, 512)
    for block in (4, 16, 64):
        inference = FixedShapeBackend(model, 8, block=block)
        inference.prefill(0, tokens[:30])
        hidden = inference.feed([(0, tokens[p], p) for p in range(30, 40)])
        with torch.no_grad():
            expected = model(torch.tensor([tokens]))[0, 30:]
        torch.testing.assert_close(hidden, expected, rtol=1e-4, atol=1e-4)


def test_bfloat16_stays_near_float32() -> None:
    model = network("grouped")
    tokens = sequence(6, 40, 96)
    with torch.no_grad():
        expected = model(torch.tensor([tokens]))[0, 30:]
    inference = FixedShapeBackend(model.to(torch.bfloat16), 2)
    inference.prefill(0, tokens[:30])
    rows = [(0, tokens[p], p) for p in range(30, 40)]
    hidden = inference.feed(rows)
    assert (hidden.float() - expected).abs().mean() < 0.05
    assert torch.equal(torch.cat([inference.feed([row]) for row in rows]), hidden)


def test_the_self_test_passes_here_and_counts_nothing() -> None:
    inference = FixedShapeBackend(network("smollm2"), 16)
    assert inference.self_test().batch_invariant
    assert (inference.counts.prompt, inference.counts.generated) == (0, 0)


def test_the_self_test_reports_bits_that_depend_on_the_batch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    inference = FixedShapeBackend(network("grouped"), 16)
    feed = inference.feed
    monkeypatch.setattr(inference, "feed", lambda rows: feed(rows) * (1 + 1e-6 * len(rows)))
    result = inference.self_test()
    assert not result.batch_invariant
    assert "gave other bits among 16 rows than alone" in result.sentence


def test_rows_are_counted() -> None:
    inference = FixedShapeBackend(network("grouped"), 2)
    inference.prefill(0, [1] * 70)
    inference.feed([(0, 1, 70), (1, 2, 0)])
    assert (inference.counts.prompt, inference.counts.generated) == (70, 2)


def test_what_cannot_be_computed_is_refused() -> None:
    model = network("grouped")
    inference = FixedShapeBackend(model, 2)
    with pytest.raises(InputError, match=r"slot must be from 0 to 1, got 2"):
        inference.feed([(2, 0, 0)])
    with pytest.raises(InputError, match=r"token must be from 0 to 95, got 0 to 96"):
        inference.prefill(0, [0, 96])
    with pytest.raises(InputError, match=r"start must be a multiple of the chunk \(64\), got 3"):
        inference.prefill(0, [1], start=3)
    with pytest.raises(InputError, match=r"at most 2048 tokens .* got 2049"):
        inference.feed([(0, 1, 2048)])
    with pytest.raises(InputError, match="position must be 0 or more, got -1"):
        inference.feed([(0, 1, -1)])
    with pytest.raises(InputError, match="one token per position, got two"):
        inference.feed([(0, 1, 5), (0, 2, 5)])


@compiled_too
def test_sizes_that_make_no_sense_are_refused(make: Callable[[Llama, int], Backend]) -> None:
    with pytest.raises(InputError, match=r"^slots must be at least 1, got 0\. Use 16\.$"):
        make(network("grouped"), 0)
    with pytest.raises(InputError, match="block must be at least 1, got 0"):
        FixedShapeBackend(network("grouped"), 1, block=0)
    with pytest.raises(InputError, match="prefill_chunk must be a multiple of 64, got 100"):
        FixedShapeBackend(network("grouped"), 1, prefill_chunk=100)
