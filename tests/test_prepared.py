"""Weights are prepared once for a network, and anew when they have changed."""

from __future__ import annotations

import copy
import gc
import weakref
from collections.abc import Callable

import pytest
import torch
from test_inference_same_bits import network, sequence
from torch import Tensor, nn

from ostinato.inference import CompiledBackend, FixedShapeBackend
from ostinato.inference.compiled import build
from ostinato.inference.prepared import prepared
from ostinato.models import Llama, add_lora

Make = Callable[[Llama], FixedShapeBackend | CompiledBackend]
needs_compiler = pytest.mark.skipif(not build.has_compiler(), reason="there is no C++ compiler")
every_backend = pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda model: FixedShapeBackend(model, 2, length=64), id="plain"),
        pytest.param(lambda model: FixedShapeBackend(model, 2, packed=False), id="unpacked"),
        pytest.param(
            lambda model: FixedShapeBackend(model, 2, dtype=torch.bfloat16), id="converted"
        ),
        pytest.param(lambda model: CompiledBackend(model, 2), marks=needs_compiler, id="compiled"),
        pytest.param(
            lambda model: CompiledBackend(model, 2, bits=8), marks=needs_compiler, id="int8"
        ),
    ],
)


def logits(backend: FixedShapeBackend | CompiledBackend, seed: int = 1) -> Tensor:
    tokens = sequence(seed, 20, 60)
    backend.prefill(0, tokens)
    return backend.logits(backend.feed([(0, 5, 20)]))


def weights_of(backend: FixedShapeBackend | CompiledBackend) -> object:
    return backend._weights


@every_backend
def test_backends_of_a_network_share_its_prepared_weights(make: Make) -> None:
    model = network("qwen3")
    first = make(model)
    expected = logits(first)
    second = make(model)
    assert weights_of(first) is weights_of(second)
    other = logits(second, seed=2)  # a cache of its own
    assert torch.equal(first.logits(first.feed([(0, 5, 20)])), expected)
    assert torch.equal(logits(make(copy.deepcopy(model)), seed=2), other)


def in_place(model: Llama) -> None:
    with torch.no_grad():
        next(model.blocks()).mlp.down_proj.weight[3, 5] += 1


def through_data(model: Llama) -> None:
    next(model.blocks()).self_attn.o_proj.weight.data.mul_(2)


def other_data(model: Llama) -> None:
    weight = next(model.blocks()).self_attn.v_proj.weight
    weight.data = weight.data + 1


def other_parameter(model: Llama) -> None:
    head = model.lm_head
    head.weight = nn.Parameter(head.weight.detach() * 2)


def optimizer(model: Llama) -> None:
    model(torch.tensor([[1, 2, 3]])).square().sum().backward()
    torch.optim.SGD(model.parameters(), lr=0.1).step()
    model.zero_grad()


def loaded(model: Llama) -> None:
    model.load_state_dict({k: v * 1.5 for k, v in model.state_dict().items()})


@every_backend
@pytest.mark.parametrize(
    "change", [in_place, through_data, other_data, other_parameter, optimizer, loaded]
)
def test_a_changed_weight_is_seen(make: Make, change: Callable[[Llama], None]) -> None:
    model = network("qwen3")
    before = logits(make(model))
    change(model)
    after = logits(make(model))
    assert not torch.equal(before, after)
    assert torch.equal(after, logits(make(copy.deepcopy(model))))


def test_other_settings_have_other_weights() -> None:
    model = network("grouped")
    first = FixedShapeBackend(model, 2, packed=False)
    for settings in ({"packed": True}, {"block": 8}, {"dtype": torch.bfloat16}):
        other = FixedShapeBackend(model, 2, **settings)
        assert weights_of(other) is not weights_of(first)


@every_backend
def test_a_network_is_freed_with_its_prepared_weights(make: Make) -> None:
    model = network("grouped")
    backend = make(model)
    gone = weakref.ref(model)
    del backend, model
    gc.collect()
    assert gone() is None


def test_nothing_is_kept_of_a_network_in_training() -> None:
    model = network("grouped")
    model(torch.tensor([[1, 2, 3]])).sum().backward()
    made: list[object] = []

    def make() -> object:
        made.append(object())
        return made[-1]

    def value() -> object:
        return prepared(model, "key", make).value

    assert value() is not value()
    model.zero_grad()
    assert value() is value()
    assert len(made) == 3
    add_lora(model, 2)
    assert value() is not value()
