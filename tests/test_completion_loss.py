"""The truncated backward pass: an exact loss, and the full gradient if every token counts."""

from __future__ import annotations

import copy

import torch
from tiny import tiny_model
from torch import Tensor

from ostinato.models import Llama, add_lora
from ostinato.models.networks.lora import lora_layers
from ostinato.testing import check_process
from ostinato.train import Example, TextTask, Training, TrainingConfig
from ostinato.train.completion_loss import completion_only_loss
from ostinato.train.task import summed_loss


def adapted() -> Llama:
    network = add_lora(copy.deepcopy(tiny_model().llama()), 4, 8.0)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for _, layer in lora_layers(network):
            layer.lora_B.weight.normal_(std=0.1, generator=generator)
    return network


def batch(network: Llama) -> tuple[Tensor, list[int]]:
    lengths = [23, 17, 9]
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randint(0, network.config.vocab_size, (3, 23), generator=generator)
    for row, length in enumerate(lengths):
        tokens[row, length:] = 0
    return tokens, lengths


def gradients(network: Llama, loss: Tensor) -> dict[str, Tensor]:
    names, values = zip(
        *((n, p) for n, p in network.named_parameters() if p.requires_grad), strict=True
    )
    return dict(zip(names, torch.autograd.grad(loss, values), strict=True))


def test_the_loss_is_that_of_the_full_pass() -> None:
    network = adapted()
    tokens, lengths = batch(network)
    loss_mask = torch.zeros_like(tokens, dtype=torch.bool)
    loss_mask[0, 8:12] = loss_mask[0, 18:23] = loss_mask[1, 5:9] = loss_mask[2, 4:9] = True
    expected = summed_loss(network, tokens, loss_mask)
    torch.testing.assert_close(completion_only_loss(network, tokens, loss_mask, lengths), expected)


def test_a_batch_without_a_counted_token_has_no_loss_and_no_gradient() -> None:
    network = adapted()
    tokens, lengths = batch(network)
    loss_mask = torch.zeros_like(tokens, dtype=torch.bool)
    loss = completion_only_loss(network, tokens, loss_mask, lengths)
    assert float(loss.detach()) == 0.0
    loss.backward()  # type: ignore[no-untyped-call]
    assert not any(bool(p.grad.any()) for p in network.parameters() if p.grad is not None)


def test_the_gradient_is_full_where_every_token_counts() -> None:
    network = adapted()
    tokens, lengths = batch(network)
    loss_mask = torch.arange(tokens.size(1)) < torch.tensor(lengths)[:, None]
    loss_mask[:, 0] = False
    expected = gradients(network, summed_loss(network, tokens, loss_mask))
    found = gradients(network, completion_only_loss(network, tokens, loss_mask, lengths))
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-3, atol=1e-4)


def test_the_truncated_gradient_points_the_same_way() -> None:
    network = adapted()
    tokens, lengths = batch(network)
    loss_mask = torch.zeros_like(tokens, dtype=torch.bool)
    loss_mask[0, 18:23] = loss_mask[1, 12:17] = loss_mask[2, 4:9] = True
    expected = gradients(network, summed_loss(network, tokens, loss_mask))
    found = gradients(network, completion_only_loss(network, tokens, loss_mask, lengths))
    whole = torch.cat([g.flatten() for g in expected.values()])
    truncated = torch.cat([g.flatten() for g in found.values()])
    assert float(torch.cosine_similarity(whole, truncated, dim=0)) > 0.9


def test_a_frozen_base_in_bfloat16_gives_nearly_the_same_gradient() -> None:
    results = []
    for dtype in (torch.float32, torch.bfloat16):
        network = copy.deepcopy(tiny_model().llama()).to(dtype)
        add_lora(network, 4, 8.0)
        tokens, lengths = batch(network)
        loss_mask = torch.arange(tokens.size(1)) < torch.tensor(lengths)[:, None]
        loss_mask[:, :5] = False
        loss = completion_only_loss(network, tokens, loss_mask, lengths)
        found = gradients(network, loss)
        results.append(torch.cat([g.flatten() for g in found.values()]))
    assert float(torch.cosine_similarity(results[0], results[1], dim=0)) > 0.99


def test_a_training_on_completions_conforms_and_learns() -> None:
    tokens = tuple(int(t) for t in torch.arange(24) % 7 + 3)
    rows = [Example(tokens[n:], (False,) * 8 + (True,) * (16 - n)) for n in range(6)]

    def training() -> Training:
        task = TextTask(rows, completion_only=True)
        return Training(adapted(), task, TrainingConfig(batch_tokens=48, lr=0.02))

    check_process(training, steps=6, cuts=(0, 2, 5))
    process = training()
    losses = [float(str(process.step()["loss/train"])) for _ in range(40)]
    assert losses[-1] < 0.8 * losses[0]
