"""A backend that takes new weights gives the bits of one that is opened with them."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import pytest
import torch
from test_inference_same_bits import network
from test_prepared import in_place, logits, optimizer, other_data, other_parameter, through_data
from tiny import tiny_model
from torch import Tensor, nn

from ostinato.decode import Decode, TokenPrompt, plain_prompt
from ostinato.errors import InputError
from ostinato.inference import (
    Backend,
    CompiledBackend,
    FixedShapeBackend,
    GRUBackend,
    SelfTest,
    backend_for,
    find_kernel,
    has_kernel,
    open_backend,
)
from ostinato.inference.compiled.weights import Weights
from ostinato.inference.packing import can_pack
from ostinato.inference.slot_backend import SlotBackend
from ostinato.loop import Lane
from ostinato.models import (
    GRU,
    GRUConfig,
    LanguageModel,
    Llama,
    add_lora,
    lora_layers,
    merge,
    plain_compute_mode,
)
from ostinato.text.training import TextTraining
from ostinato.text.training_run import _Sampler
from ostinato.train import Example

Make = Callable[[Llama], FixedShapeBackend | CompiledBackend]
needs_kernel = pytest.mark.skipif(not has_kernel(), reason="there is no kernel")
needs_tiles = pytest.mark.skipif(
    not (has_kernel() and find_kernel().has_tiles()), reason="the processor has no AMX"
)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def plain(**settings: bool | torch.dtype) -> Make:
    return lambda model: FixedShapeBackend(model, 3, length=64, **settings)  # type: ignore[arg-type]


def compiled(bits: int | None = None, tiles: bool = False) -> Make:
    return lambda model: CompiledBackend(model, 3, bits=bits, tiles=tiles)


PACKED = {"packed": can_pack(torch.bfloat16, 16)}
MODES = [
    pytest.param(torch.float32, plain(packed=can_pack(torch.float32, 16)), id="plain"),
    pytest.param(torch.float32, plain(packed=False), id="unpacked"),
    pytest.param(torch.bfloat16, plain(**PACKED), id="plain bfloat16"),
    pytest.param(torch.float32, plain(dtype=torch.bfloat16), id="converted"),
    pytest.param(torch.float32, compiled(), marks=needs_kernel, id="compiled"),
    pytest.param(torch.bfloat16, compiled(), marks=needs_kernel, id="compiled bfloat16"),
    pytest.param(torch.float16, compiled(), marks=needs_kernel, id="compiled float16"),
    pytest.param(torch.bfloat16, compiled(tiles=True), marks=needs_tiles, id="tiles"),
    pytest.param(torch.float32, compiled(8), marks=needs_kernel, id="int8"),
    pytest.param(torch.bfloat16, compiled(4), marks=needs_kernel, id="int4"),
]
every_mode = pytest.mark.parametrize(("dtype", "make"), MODES)


def trained(model: Llama, seed: int) -> Llama:
    """Return the network with other weights in its adapter, as after some steps."""
    drawn = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for _, layer in lora_layers(model):
            layer.lora_A.weight.normal_(0, 0.2, generator=drawn)
            layer.lora_B.weight.normal_(0, 0.2, generator=drawn)
    return model


def merged(model: Llama) -> Llama:
    return merge(copy.deepcopy(model))


@every_mode
@pytest.mark.parametrize("shape", ["grouped", "whole", "qwen3"])
def test_an_adapter_that_learns_gives_the_bits_of_merged_weights(
    shape: str, dtype: torch.dtype, make: Make
) -> None:
    model = add_lora(network(shape).to(dtype), 4)
    backend = make(trained(model, 1))
    assert torch.equal(logits(backend), logits(make(merged(model))))
    for seed in (2, 3):
        assert backend.update(trained(model, seed) if seed == 3 else None) is (seed == 3)
        anew = make(merged(model))
        assert torch.equal(logits(backend), logits(anew))
        assert backend.compute_mode == anew.compute_mode


@every_mode
@pytest.mark.parametrize("change", [in_place, through_data, other_data, other_parameter, optimizer])
def test_every_changed_weight_is_taken_over(
    dtype: torch.dtype, make: Make, change: Callable[[Llama], None]
) -> None:
    model = network("qwen3").to(dtype)
    backend = make(model)
    before = logits(backend)
    for _ in range(2):  # the first time from shared weights, then in place
        change(model)
        assert backend.update()
        assert not torch.equal(logits(backend), before)
        assert torch.equal(logits(backend), logits(make(copy.deepcopy(model))))
        before = logits(backend)


@every_mode
def test_other_backends_of_a_network_keep_their_weights(dtype: torch.dtype, make: Make) -> None:
    model, other = network("qwen3").to(dtype), network("qwen3").to(dtype)
    in_place(other)
    first, second = make(model), make(model)
    expected = logits(second)
    for _ in range(2):
        in_place(other)
        assert first.update(other)
        assert torch.equal(logits(first), logits(make(copy.deepcopy(other))))
        assert torch.equal(logits(second), expected)
    assert torch.equal(logits(make(model)), expected)
    assert first.update(model) and torch.equal(logits(first), expected)


@every_mode
def test_an_update_of_nothing_keeps_what_slots_hold(dtype: torch.dtype, make: Make) -> None:
    for model in (network("grouped").to(dtype), add_lora(network("grouped").to(dtype), 2)):
        backend = make(model)
        expected = logits(backend)
        weights = backend._weights
        assert not backend.update() and not backend.update(model)
        assert backend._weights is weights
        assert torch.equal(backend.logits(backend.feed([(0, 5, 20)])), expected)


@needs_kernel
def test_only_what_changed_is_arranged_again(monkeypatch: pytest.MonkeyPatch) -> None:
    model = add_lora(network("qwen3"), 2, targets=["v_proj", "down_proj"])
    backend = CompiledBackend(model, 2)
    packed: list[str] = []
    load = Weights._load_product

    def counted(self: Weights, name: str, *rest: object) -> None:
        packed.append(name)
        load(self, name, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(Weights, "_load_product", counted)
    backend.update(trained(model, 1))
    assert packed == [f"{i}.{part}" for i in range(3) for part in ("qkv", "down")]


@needs_kernel
def test_float32_weights_that_stop_fitting_into_16_bits_are_computed_in_float32() -> None:
    model = network("smollm2").to(torch.bfloat16).float()
    backend = CompiledBackend(model, 2)
    assert backend.dtype == torch.bfloat16
    assert CompiledBackend(add_lora(copy.deepcopy(model), 2), 1).dtype == torch.float32
    with torch.no_grad():
        next(model.blocks()).mlp.down_proj.weight[3, 5] += 1e-6
    assert backend.update()
    anew = CompiledBackend(copy.deepcopy(model), 2)
    assert (backend.compute_mode, backend.dtype) == (anew.compute_mode, torch.float32)
    assert torch.equal(logits(backend), logits(anew))


def test_addresses_stay_so_that_recorded_graphs_do() -> None:
    model = add_lora(network("qwen3"), 2)
    backend = FixedShapeBackend(model, 2, packed=False)
    before = backend._weights.addresses()
    for seed in (1, 2):
        assert backend.update(trained(model, seed))
        assert backend._weights.addresses() == before
    backend.update(copy.deepcopy(model))  # the head and the embeddings were the other network's
    assert backend._weights.addresses() != before
    assert all(same.shape for _, same in model.named_parameters())
    assert torch.equal(logits(backend), logits(FixedShapeBackend(merged(model), 2, packed=False)))


@every_mode
def test_a_network_that_does_not_fit_is_refused(dtype: torch.dtype, make: Make) -> None:
    model = network("grouped").to(dtype)
    backend = make(model)
    expected = logits(backend)
    with pytest.raises(InputError, match=r"vocab_size must be 96, .* got 67\. Open another"):
        backend.update(network("whole").to(dtype))
    with pytest.raises(InputError, match=r"type must be \w+, as when .*, got float64\. Open"):
        backend.update(network("grouped").double())
    with pytest.raises(InputError, match=r"class must be Llama, .* got GRU\. Open another"):
        backend.update(GRU(GRUConfig(vocab_size=96, hidden_size=32, num_hidden_layers=1)))
    assert torch.equal(logits(backend), expected)
    model.double()  # the network that it was opened with may change as well
    with pytest.raises(InputError, match=r"got float64\. Open another"):
        backend.update()


def test_a_recurrent_network_takes_new_weights() -> None:
    model = GRU(GRUConfig(vocab_size=40, hidden_size=32, num_hidden_layers=2), seed=1)
    backend = GRUBackend(model, 2)
    assert not backend.update()
    for name in ("embed_tokens.weight", "layers.weight_hh_l1", "layers.bias_ih_l0"):
        with torch.no_grad():
            model.get_parameter(name).mul_(1.5)
        assert backend.update()
        assert torch.equal(_fed(backend), _fed(GRUBackend(copy.deepcopy(model), 2)))


def _fed(backend: Backend) -> Tensor:
    backend.prefill(0, [3, 7, 11])
    return backend.logits(backend.feed([(0, 5, 3)]))


# Decode -----------------------------------------------------------------------------------------


def live_model(compile: bool) -> LanguageModel:
    """Return a model with an adapter that has learned nothing yet."""
    tiny = tiny_model()
    model = replace(tiny, network=copy.deepcopy(tiny.llama()), compile=compile)
    add_lora(model.llama(), 4)
    return model


def merged_model(model: LanguageModel) -> LanguageModel:
    return replace(model, network=merged(model.llama()))


modes = pytest.mark.parametrize("compile", [False, pytest.param(True, marks=needs_kernel)])


def decode_of(model: LanguageModel) -> Decode:
    return Decode(model, plain_prompt(model.tokenizer.encode), slots=3)


def steps(decode: Decode, count: int) -> list[dict[str, object]]:
    return [dict(decode.step()["a"]) for _ in range(count)]


@modes
def test_a_lane_in_work_goes_on_as_if_the_new_weights_had_read_it(compile: bool) -> None:
    model = live_model(compile)
    decode = decode_of(model)
    decode.start(Lane("a", 7), "The reply")
    before = steps(decode, 5)
    trained(model.llama(), 1)
    assert decode.update()
    after = steps(decode, 5)
    resumed = decode_of(merged_model(model))
    resumed.start(Lane("a", 7, past=tuple(before)), "The reply")
    assert after == steps(resumed, 5)
    assert decode.output("a") == resumed.output("a")
    stale = decode_of(live_model(compile))
    stale.start(Lane("a", 7, past=tuple(before)), "The reply")
    assert after != steps(stale, 5)


@modes
def test_prompts_that_old_weights_computed_are_forgotten(compile: bool) -> None:
    model = live_model(compile)
    decode = decode_of(model)
    decode.start(Lane("a", 7), "The reply to your message is here.")
    steps(decode, 1)
    decode.drop("a")
    decode.update()  # of nothing: the prompt stays
    prompts = decode._inference.counts.prompt
    decode.start(Lane("a", 7), "The reply to your message is here.")
    assert decode._inference.counts.prompt == prompts
    decode.drop("a")
    trained(model.llama(), 1)
    decode.update()
    decode.start(Lane("a", 7), "The reply to your message is here.")
    anew = decode_of(merged_model(model))
    anew.start(Lane("a", 7), "The reply to your message is here.")
    assert steps(decode, 4) == steps(anew, 4)


@modes
def test_rows_count_once_though_an_update_computes_them_again(compile: bool) -> None:
    model = live_model(compile)
    decode = decode_of(model)
    decode.start(Lane("a", 7), "The reply")
    steps(decode, 4)
    trained(model.llama(), 1)
    decode.update()
    assert [report["computed"] for report in steps(decode, 2)] == [1, 1]
    decode.rewind(Lane("a", 7, backtracks=1), 3)
    trained(model.llama(), 2)
    decode.update()
    assert steps(decode, 1)[0]["computed"] == 0  # the row before position 3 was reported


# Networks of users ------------------------------------------------------------------------------


@dataclass
class _Shape:
    vocab_size: int = 400
    max_position_embeddings: int = 64


class _Bigram(nn.Module):
    """Writes by a table of the next token's logits."""

    def __init__(self, vocab_size: int) -> None:
        super().__init__()
        self.config = _Shape(vocab_size)
        self.table = nn.Parameter(torch.eye(vocab_size).roll(1, 1) * 100)


def test_a_network_brings_its_own_backend() -> None:
    tiny = tiny_model()
    model = replace(tiny, network=_Bigram(tiny.tokenizer.vocab_size))
    with pytest.raises(InputError, match=r"class with a backend, got _Bigram\. Register one with"):
        open_backend(model, 1)

    class Bigrams(SlotBackend):
        def prefill(self, slot: int, tokens: object, start: int = 0) -> None: ...
        def copy(self, source: int, target: int, length: int) -> None: ...
        def feed(self, rows: list[tuple[int, int, int]]) -> Tensor:
            return torch.tensor([[float(token)] for _, token, _ in rows])

        def logits(self, hidden: Tensor) -> Tensor:
            assert isinstance(self.network, _Bigram)
            return self.network.table.detach()[hidden[:, 0].long()].clone()

        def _take_over(self, network: object) -> bool:
            return True

        def _compare_rows(self) -> SelfTest:
            return SelfTest(True, "")

    @backend_for.register
    def _bigrams(network: _Bigram, model: object, slots: int, *, block: int = 16) -> Backend:
        return Bigrams(network, slots=slots, block=block)  # type: ignore[return-value]

    decode = Decode(model, lambda *_: TokenPrompt([10]), slots=1)
    assert decode.compute_mode == plain_compute_mode(torch.device("cpu"))
    decode.start(Lane("a", 1), "")
    assert [report["token"] for report in steps(decode, 3)] == [11, 12, 13]
    with torch.no_grad():
        model.network.get_parameter("table").copy_(torch.eye(model.tokenizer.vocab_size) * 100)
    decode.update()
    assert [report["token"] for report in steps(decode, 2)] == [13, 13]


# Samples of a training --------------------------------------------------------------------------


def test_samples_of_a_training_go_through_one_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[LanguageModel] = []

    def counted(model: LanguageModel, slots: int, *, block: int = 16) -> Backend:
        opened.append(model)
        return open_backend(model, slots, block=block)

    monkeypatch.setattr("ostinato.decode.decode.open_backend", counted)
    model = live_model(False)
    tokens = model.tokenizer.encode("The reply to your message is here.")
    example = Example(tuple(tokens), (False,) * 4 + (True,) * (len(tokens) - 4))
    sample = _Sampler(TextTraining(model, [example], [example]))
    samples = []
    for seed in (1, 2, 3):
        samples.append(sample(trained(model.llama(), seed)))
        assert samples[-1] == _Sampler(TextTraining(merged_model(model), [example], [example]))(
            merged(model.llama())
        )
    assert len(set(samples)) == 3 and len(opened) == 1 + 3  # one of ours, three to compare with
