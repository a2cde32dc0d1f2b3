"""The gradients that are written out are those that torch derives step by step."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from ostinato.models import Llama, LlamaConfig
from ostinato.models.networks.llama import rope_table
from ostinato.models.networks.train_kernels import rms_norm, rotate

CONFIG = LlamaConfig(
    vocab_size=20,
    hidden_size=24,
    intermediate_size=32,
    num_hidden_layers=2,
    num_attention_heads=3,
    num_key_value_heads=3,
    head_dim=8,
    max_position_embeddings=64,
)


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    values = torch.randn(*shape, generator=torch.Generator().manual_seed(seed))
    return values.requires_grad_()


def grads(y: torch.Tensor, *leaves: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Return the gradients of a sum of `y` that weighs each of its numbers differently."""
    weights = drawn(*y.shape, seed=2).detach()
    return torch.autograd.grad((y * weights).sum(), leaves)


def test_a_norm_has_the_value_and_gradients_of_torch() -> None:
    x, weight = drawn(3, 5, 24), drawn(24, seed=1)
    ours, theirs = rms_norm(x, weight, 1e-5), F.rms_norm(x, (24,), weight, 1e-5)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    for found, expected in zip(grads(ours, x, weight), grads(theirs, x, weight), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_a_norm_whose_weight_is_frozen_passes_the_gradient_on() -> None:
    x, weight = drawn(4, 24), torch.ones(24)
    found = grads(rms_norm(x, weight, 1e-5), x)
    expected = grads(F.rms_norm(x, (24,), weight, 1e-5), x)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_a_turn_has_the_value_and_gradients_of_pairs_that_are_turned() -> None:
    cos, sin = rope_table(CONFIG, 6, dtype=torch.float32)
    x = drawn(2, 3, 6, 8)
    first, second = x.chunk(2, -1)
    plain = x * cos + torch.cat((-second, first), -1) * sin
    turned = rotate(x, cos, sin)
    torch.testing.assert_close(turned, plain)
    torch.testing.assert_close(grads(turned, x), grads(plain, x))


def test_layers_that_add_nothing_leave_a_tokens_vector_as_it_is() -> None:
    network = Llama(CONFIG, seed=1)
    network.zero_init()
    tokens = torch.tensor([[3, 1, 4, 1, 5]])
    expected = network.model.norm(network.model.embed_tokens(tokens))
    assert torch.equal(network(tokens), expected)
