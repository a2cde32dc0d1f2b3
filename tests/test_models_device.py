"""Networks on a CUDA device; without one, on a device that has shapes only."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from killable_loops import tiny_gru
from tiny import CORPUS, save_tiny, tiny_model
from tiny_bert import tiny_bert, word_pieces
from torch import nn

from ostinato.decode import Decode, SamplingParams, plain_prompt
from ostinato.errors import InputError, ModelError
from ostinato.inference import (
    Backend,
    CudaGraphBackend,
    FixedShapeBackend,
    GRUBackend,
    open_backend,
)
from ostinato.loop import Steps
from ostinato.models import (
    LanguageModel,
    MaskedModel,
    Tokenizer,
    add_lora,
    compute_dtype,
    device,
    device_of,
    find_device,
    load_model,
)
from ostinato.models.device import deterministic_ops
from ostinato.testing import check_lane_process, check_process
from ostinato.text import FillConfig, MaskedText, Unmask, write
from ostinato.train import MaskedTextTask, TextTask, Training, TrainingConfig, windows

CUDA = "cuda:0"
TOKENS = [(7 * i + 3) % 300 for i in range(90)]
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


def test_a_pass_stays_on_its_device() -> None:
    network = copy.deepcopy(tiny_model().llama()).to("meta")  # refuses what is on the processor
    inference = FixedShapeBackend(network, 4)
    inference.prefill(1, TOKENS)
    inference.copy(1, 3, 64)
    rows = [(1, 5, 90), (3, 2, 64), (0, 7, 0)]
    assert inference.feed(rows).device.type == inference.feed(rows[1:]).device.type == "meta"
    assert inference.packed is False


def test_a_recurrent_pass_stays_on_its_device() -> None:
    inference = GRUBackend(copy.deepcopy(tiny_gru().network).to("meta"), 2)  # type: ignore[arg-type]
    inference.prefill(0, TOKENS[:9])
    assert inference.feed([(0, 5, 9)]).device.type == "meta"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("tpu", "device must be cpu, cuda or cuda:N, got 'tpu'"),
        ("", None),
        ("meta", "device must be cpu, cuda or cuda:N"),
        ("cuda:99", "device must be one that PyTorch finds here"),
    ],
)
def test_a_device_must_be_known_and_there(name: str, message: str | None) -> None:
    if message is None:
        assert find_device(name) == find_device(None) == torch.device("cpu")
        return
    with pytest.raises(InputError, match=message):
        find_device(name)


def test_a_model_is_not_compiled_for_a_device(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    with pytest.raises(ModelError, match="compile must be given for the CPU, got it for cuda"):
        load_model(save_tiny(tmp_path / "tiny"), compile=True, device="cuda")


def test_operations_are_made_the_same_on_a_device_for_a_while() -> None:
    with deterministic_ops(torch.device("cuda")):
        assert torch.are_deterministic_algorithms_enabled()
    with deterministic_ops(torch.device("cpu")):
        assert not torch.are_deterministic_algorithms_enabled()


# With a device --------------------------------------------------------------------------------


def moved(model: LanguageModel) -> LanguageModel:
    return replace(model, network=copy.deepcopy(model.network).to(CUDA))


def numbers(backend: Backend) -> torch.Tensor:
    """Return logits after a prompt, of tokens fed one by one, and after going back."""
    backend.prefill(0, TOKENS[:64])
    hidden = [backend.feed([(0, token, 64 + n)]) for n, token in enumerate(TOKENS[64:80])]
    backend.copy(0, 1, 70)
    hidden += [backend.feed([(1, 9, 70), (0, 8, 66)])]
    return backend.logits(torch.cat(hidden))


@needs_cuda
@pytest.mark.parametrize("make", [tiny_model, tiny_gru])
def test_a_device_gives_the_processors_numbers(make: Any) -> None:
    here, there = open_backend(make(), 2), open_backend(moved(make()), 2)
    assert isinstance(there, CudaGraphBackend if make is tiny_model else GRUBackend)
    assert there.self_test().batch_invariant
    torch.testing.assert_close(numbers(there), numbers(here), rtol=1e-3, atol=1e-3)


@needs_cuda
def test_recorded_passes_give_the_bits_of_passes_that_are_not() -> None:
    network = moved(tiny_model()).llama()
    recorded, plain = CudaGraphBackend(network, 2), FixedShapeBackend(network, 2)
    torch.testing.assert_close(numbers(recorded), numbers(plain), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(
        numbers(recorded), numbers(CudaGraphBackend(network, 2)), rtol=0, atol=0
    )


@needs_cuda
@pytest.mark.parametrize("make", [tiny_model, tiny_gru])
def test_decode_conforms_on_a_device(make: Any) -> None:
    model = moved(make())
    encode = plain_prompt(model.tokenizer.encode)
    items = {str(n): text for n, text in enumerate([*CORPUS, "Hello", "A table " * 12])}

    def process(slots: int) -> Decode:
        return Decode(model, encode, sampling=SamplingParams(temperature=0.8, top_k=8), slots=slots)

    check_lane_process(process, items, steps=20, edits={"forbid": [5, 6], "temperature": 0.5})


@needs_cuda
def test_gaps_are_filled_on_a_device() -> None:
    tokenizer = Tokenizer(word_pieces())
    model = MaskedModel(tiny_bert(tokenizer.vocab_size).to(CUDA), tokenizer, "tiny")
    items = {
        "one": MaskedText(("i want to ", " please"), (6,)),
        "two": MaskedText(("the ", " ."), (4,)),
    }
    check_lane_process(lambda n: Unmask(model, steps=4, slots=n, fill=FillConfig()), items, steps=4)


@needs_cuda
@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
@pytest.mark.parametrize("kind", ["text", "answers", "masked", "gru", "bfloat16"])
def test_training_conforms_on_a_device(kind: str, optimizer: Any) -> None:
    def training() -> Training:
        network: nn.Module = copy.deepcopy(tiny_model().llama())
        task: Any = TextTask(windows(TOKENS, 16), windows(TOKENS[:40], 16))
        if kind == "masked":
            network, task = (
                tiny_bert(60),
                MaskedTextTask(windows([t % 40 + 5 for t in TOKENS], 16), [], mask_id=4),
            )
        elif kind == "gru":
            network = copy.deepcopy(tiny_gru().network)
        elif kind == "answers":
            network = add_lora(copy.deepcopy(tiny_model().llama()), 2, 4.0)
            task = TextTask(windows(TOKENS, 16), completion_only=True)
        precision: Any = "bfloat16" if kind == "bfloat16" else "float32"
        config = TrainingConfig(
            steps=40,
            batch_tokens=96,
            valid_every=4,
            ema_decay=0.9,
            optimizer=optimizer,
            precision=precision,
        )
        training = Training(network.to(CUDA), task, config)
        assert training.precision.device == torch.device(CUDA) == device_of(network)
        return training

    check_process(training)


@needs_cuda
def test_texts_are_the_same_alone_and_in_a_batch_on_a_device() -> None:
    model = moved(tiny_model())
    sampling = SamplingParams(temperature=0.9)
    texts = [f"Number {n}" for n in range(20)]

    def written(some: list[str]) -> list[str]:
        loop = write(some, model=model, each=Steps(12), sampling=sampling, chat=False)
        return [str(one.output) for step in loop for one in step.results]

    assert sorted(written(texts)) == sorted(text for one in texts for text in written([one]))


@pytest.mark.parametrize(
    ("instructions", "limit", "dtype"),
    [
        ({"avx2"}, None, torch.float32),
        ({"avx2", "avx512_bf16"}, None, torch.bfloat16),
        ({"avx2", "amx_bf16"}, "default", torch.bfloat16),
        ({"avx2", "amx_bf16"}, "AVX512_CORE_AMX", torch.bfloat16),
        ({"avx2", "amx_bf16"}, "AVX512_CORE_BF16", torch.bfloat16),
        ({"avx2", "amx_bf16"}, "AVX512_CORE", torch.float32),
        ({"avx2", "amx_bf16"}, "avx2", torch.float32),
    ],
)
def test_bfloat16_is_the_type_where_it_is_multiplied_fast(
    instructions: set[str],
    limit: str | None,
    dtype: torch.dtype,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(device, "instruction_sets", lambda: frozenset(instructions))
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA", raising=False)
    if limit is not None:
        monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", limit)
    assert compute_dtype() == dtype
