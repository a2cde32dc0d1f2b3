"""The compiled pass gives the plain network's numbers, and a row's bits in any batch."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from test_inference_same_bits import check_batches, check_numbers, network, sequence
from tiny import compiled_tiny, save_tiny, tiny_model
from tiny_gguf import save_tiny_gguf

from ostinato.decode import Decode, SamplingParams, plain_prompt
from ostinato.errors import InputError, ModelError, RunError
from ostinato.inference import CompiledBackend, open_backend
from ostinato.inference.compiled import build
from ostinato.inference.compiled.forms import MAX_HEADS
from ostinato.inference.compiled.memory import LINE, PIECE, LargePages
from ostinato.inference.compiled.weights import Weights
from ostinato.loop import Lanes, Loop, Policy, Steps
from ostinato.models import (
    LanguageModel,
    Llama,
    LlamaConfig,
    instruction_sets,
    load_model,
    quantized_in_groups,
)
from ostinato.testing import check_lane_process
from ostinato.text import write

SHAPES = ["grouped", "whole", "smollm2", "qwen3"]


pytestmark = pytest.mark.skipif(not build.has_compiler(), reason="there is no C++ compiler")
needs_tiles = pytest.mark.skipif(
    not (build.has_compiler() and build.open_kernel().ask_tiles()),
    reason="the processor has no AMX",
)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("shape", SHAPES)
def test_hidden_states_and_logits_are_those_of_the_plain_network(shape: str) -> None:
    model = network(shape)
    inference = CompiledBackend(model, 2, length=64)
    check_numbers(inference, model)
    assert (inference.counts.prompt, inference.counts.generated) == (150, 50)


MODES = [
    (torch.float32, None, False),
    (torch.bfloat16, None, False),
    (torch.float16, None, False),
    (torch.float32, 8, False),
    (torch.bfloat16, 8, False),
    (torch.bfloat16, 4, False),
    pytest.param(torch.bfloat16, None, True, marks=needs_tiles),
]


@pytest.mark.parametrize(("dtype", "bits", "tiles"), MODES)
@pytest.mark.parametrize("shape", SHAPES)
def test_a_row_gives_the_same_bits_in_any_batch(
    shape: str, dtype: torch.dtype, bits: int | None, tiles: bool
) -> None:
    inference = CompiledBackend(network(shape).to(dtype), 100, bits=bits, tiles=tiles)
    assert inference.tiles == tiles
    check_batches(inference, (2, 3, 7, 16, 64, 100))


def test_float32_weights_that_came_from_bfloat16_are_computed_as_these() -> None:
    exact = network("smollm2")
    rounded = network("smollm2").to(torch.bfloat16)
    rows = [(slot, 5 + slot, 0) for slot in range(7)]
    narrow = CompiledBackend(rounded, 8, tiles=False).feed(rows)
    assert torch.equal(narrow, CompiledBackend(rounded.float(), 8, tiles=False).feed(rows))
    sizes = [Weights(each).bytes for each in (rounded, rounded.float(), exact)]
    assert sizes[0] < 0.6 * sizes[2] and sizes[1] < sizes[2]


def test_float16_weights_are_exact_in_16_bits() -> None:
    halves = network("whole").half()
    tokens = sequence(2, 30, halves.config.vocab_size)
    inference = CompiledBackend(halves, 1)
    hidden = inference.feed([(0, token, p) for p, token in enumerate(tokens)])
    with torch.no_grad():
        expected = halves.float()(torch.tensor([tokens]))[0]
    # The cache is in bfloat16: the first row reads only its own value from it.
    torch.testing.assert_close(hidden[:1], expected[:1], rtol=1e-2, atol=1e-2)
    assert (hidden - expected).abs().mean() < 0.01


@needs_tiles
@pytest.mark.parametrize("shape", SHAPES)
def test_tiles_give_the_numbers_of_sums_in_float32(shape: str) -> None:
    model = network(shape).to(torch.bfloat16)
    tokens = sequence(2, 90, model.config.vocab_size)
    found = []
    for tiles in (False, True):
        inference = CompiledBackend(model, 1, tiles=tiles)
        hidden = inference.feed([(0, token, p) for p, token in enumerate(tokens)])
        found.append(torch.cat((hidden, inference.logits(hidden)), 1))
    floats, tiled = found
    # One key or value that rounds to another bfloat16 changes every later position.
    torch.testing.assert_close(tiled[:1], floats[:1], rtol=1e-3, atol=1e-3)
    assert (tiled - floats).abs().mean() < 1e-3


@pytest.mark.parametrize(("dtype", "bits", "tiles"), MODES)
def test_the_number_of_threads_changes_no_bits(
    dtype: torch.dtype, bits: int | None, tiles: bool
) -> None:
    model = network("smollm2").to(dtype)
    tokens = sequence(6, 90, 512)
    found = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        inference = CompiledBackend(model, 2, bits=bits, tiles=tiles)
        inference.prefill(0, tokens)
        hidden = inference.feed([(0, 5, 90), (1, 6, 0)])
        found.append(torch.cat((hidden, inference.logits(hidden)), 1))
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])


@pytest.mark.parametrize(("dtype", "bits", "tiles"), MODES)
def test_a_prompt_gives_the_bits_of_its_tokens_fed_one_by_one(
    dtype: torch.dtype, bits: int | None, tiles: bool
) -> None:
    model = network("qwen3").to(dtype)
    tokens = sequence(3, 150, model.config.vocab_size)
    inference = CompiledBackend(model, 3, length=64, bits=bits, tiles=tiles)
    inference.prefill(0, tokens)
    for position, token in enumerate(tokens):
        inference.feed([(1, token, position)])
    inference.copy(0, 2, 77)
    inference.prefill(2, tokens[77:], 77)
    rows = inference.feed([(2, 9, 150), (0, 9, 150), (1, 9, 150)])
    assert torch.equal(rows[0], rows[1])
    assert torch.equal(rows[0], rows[2])


def test_bfloat16_stays_near_float32() -> None:
    model = network("grouped")
    tokens = sequence(6, 40, 96)
    with torch.no_grad():
        expected = model(torch.tensor([tokens]))[0, 30:]
    inference = CompiledBackend(model.to(torch.bfloat16), 1)
    inference.prefill(0, tokens[:30])
    hidden = inference.feed([(0, tokens[p], p) for p in range(30, 40)])
    assert (hidden - expected).abs().mean() < 0.05


def rounded(weight: torch.Tensor, bits: int) -> torch.Tensor:
    whole = torch.nn.functional.pad(weight, (0, -weight.size(1) % 32))
    return quantized_in_groups(whole, bits).dequantized()[:, : weight.size(1)]


@pytest.mark.parametrize(("bits", "most"), [(8, 0.03), (4, 0.03)])
def test_rounded_weights_compute_what_they_stand_for(bits: int, most: float) -> None:
    """Beside a network of the rounded weights: then only rows are rounded, to 8 bits."""
    model = network("whole")
    tokens = sequence(6, 40, model.config.vocab_size)
    inference = CompiledBackend(model, 1, bits=bits)
    inference.prefill(0, tokens)
    hidden = inference.feed([(0, 3, 40)])
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.endswith("proj.weight") or name == "lm_head.weight":
                weight.copy_(rounded(weight, bits))
        expected = model(torch.tensor([[*tokens, 3]]))[0, 40:]
        assert (hidden - expected).abs().mean() < most
        logits, right = inference.logits(hidden), model.logits(hidden)
        assert (logits - right).abs().mean() < most * right.abs().mean()


@pytest.mark.parametrize("bits", [8, 4])
def test_a_product_in_groups_is_that_of_the_rounded_numbers(bits: int) -> None:
    """The sums of a group are exact; what is left is the rounding of some sums of groups."""
    model = network("whole")
    inference = CompiledBackend(model, 1, bits=bits)
    rows = torch.randn(5, model.config.hidden_size)
    parts = torch.nn.functional.pad(rows, (0, -rows.size(1) % 32)).view(5, -1, 32)
    scale = parts.abs().amax(2, keepdim=True) / 127
    inputs = ((parts / scale).round() * scale).flatten(1)[:, : rows.size(1)]
    expected = (inputs.double() @ rounded(model.lm_head.weight, bits).double().T).float()
    torch.testing.assert_close(inference.logits(rows), expected, rtol=1e-4, atol=1e-4)


def test_logits_of_rows_that_are_not_side_by_side_in_memory() -> None:
    inference = CompiledBackend(network("smollm2"), 1)
    rows = torch.randn(12, 2 * inference.config.hidden_size)
    for some in (rows[::3, : inference.config.hidden_size], rows[:, 1::2]):
        assert torch.equal(inference.logits(some), inference.logits(some.clone()))


@pytest.mark.parametrize("bits", [None, 8, 4])
def test_logits_leave_nothing_behind_for_the_next_pass(bits: int | None) -> None:
    """What pads a row's inputs is 0 in each pass, also where heads are no multiple of a group."""
    config = LlamaConfig(
        vocab_size=40,
        hidden_size=512,
        intermediate_size=40,
        num_hidden_layers=1,
        num_attention_heads=1,
        num_key_value_heads=1,
        head_dim=16,
        initializer_range=0.2,
    )
    inference = CompiledBackend(Llama(config, seed=1).eval(), 1, bits=bits)
    before = inference.feed([(0, 3, 0)])
    inference.logits(torch.full((96, 512), 1e30))
    assert torch.equal(inference.feed([(0, 3, 0)]), before)


def test_as_many_key_heads_as_a_pass_counts() -> None:
    heads = MAX_HEADS
    config = LlamaConfig(
        vocab_size=8,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        head_dim=2,
    )
    made = Llama(config, seed=1).eval()
    inference = CompiledBackend(made, 100, length=64)
    rows = [(slot, slot % 8, 0) for slot in range(96)]
    assert torch.equal(inference.feed(rows)[95:], inference.feed(rows[95:]))


def test_rows_that_are_not_finite_stay_so_in_groups() -> None:
    inference = CompiledBackend(network("whole"), 1, bits=8)
    rows = torch.ones(2, inference.config.hidden_size)
    rows[1, 3] = torch.inf
    logits = inference.logits(rows)
    assert logits[0].isfinite().all() and logits[1].isnan().all()


def test_the_self_test_passes_here() -> None:
    assert CompiledBackend(network("smollm2"), 16).self_test().batch_invariant


def test_texts_are_equal_in_every_batch() -> None:
    model = replace(tiny_model(), compile=True)
    assert isinstance(open_backend(model, 2), CompiledBackend)
    items = [(str(n), f"The reply {n}") for n in range(7)]
    sampling = SamplingParams(temperature=1.0)

    def texts(slots: int) -> dict[str, object]:
        decode = Decode(model, plain_prompt(model.tokenizer.encode), sampling=sampling, slots=slots)
        assert decode.deterministic
        loop = Loop(Lanes(decode, items, Policy(each=Steps(12))), until=Steps(1 << 30))
        return {one.key: one.output for step in loop for one in step.results}

    written = texts(1)
    assert len(written) == 7
    assert texts(4) == written


@pytest.mark.parametrize(
    "form", ["float32", "bfloat16", "float16", "8", "4", "Q4_0", "Q4_1", "Q8_0"]
)
def test_a_decode_conforms_in_each_number_format(form: str, tmp_path: Path) -> None:
    model = compiled_tiny(str(save_tiny_gguf(tmp_path, form)) if form[0] == "Q" else form)

    def decode(slots: int) -> Decode:
        prompt = plain_prompt(model.tokenizer.encode)
        return Decode(model, prompt, sampling=SamplingParams(temperature=1.0), slots=slots)

    assert mode_of(model).startswith("compiled")
    items = {"short": "The", "long": "Your table is booked for two. " * 4, "other": "We can"}
    check_lane_process(decode, items, steps=8, edits={"forbid": [5, 6], "temperature": 0.5})


def mode_of(model: LanguageModel) -> str:
    return open_backend(model, 1).compute_mode.removesuffix(", by matrix tiles")


def test_a_compiled_model_is_loaded_by_name(tmp_path: Path) -> None:
    folder = save_tiny(tmp_path / "tiny")
    model = load_model(folder, compile=True, bits=8)
    assert (model.compile, model.bits) == (True, 8)
    assert isinstance(open_backend(model, 1), CompiledBackend)
    assert mode_of(load_model(folder, bits=8)) == "compiled, int8 in groups"
    assert mode_of(load_model(folder, bits=4)) == "compiled, int4 in groups"
    with pytest.raises(ModelError, match="8 bits must be given with compile"):
        load_model(folder, bits=8, compile=False)
    with pytest.raises(InputError, match="bits must be 8, 4 or None, got 5"):
        load_model(folder, bits=5)


def test_a_model_is_compiled_where_it_can_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = save_tiny(tmp_path / "tiny")
    assert mode_of(load_model(folder)) == "compiled"
    assert mode_of(load_model(folder, compile=False)) == "not compiled"
    assert mode_of(load_model(folder, dtype=torch.float16)) == "compiled"
    assert mode_of(load_model(folder, dtype=torch.float64)) == "not compiled"
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    assert mode_of(load_model(folder)) == "not compiled"
    monkeypatch.undo()
    build.open_kernel.cache_clear()
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert mode_of(load_model(folder)) == "not compiled"
    damaged = tmp_path / "c++"
    damaged.write_bytes(b"\0no program")
    damaged.chmod(0o755)
    monkeypatch.setenv("CXX", str(damaged))
    with pytest.warns(UserWarning, match=r"slower: .* must run as a C\+\+ compiler"):
        assert mode_of(load_model(folder)) == "not compiled"
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(ModelError, match="a C\\+\\+ compiler must be installed"):
        open_backend(load_model(folder, compile=True), 1)


def test_a_run_is_not_resumed_in_another_compute_mode(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    model = tiny_model()
    compiled = replace(model, compile=True)

    def loop(model: LanguageModel, run: str) -> Loop:
        texts = ["Hello", "A table"]
        return write(texts, model=model, each=Steps(6), chat=False, run=run)

    with loop(model, "a") as started:
        next(iter(started))  # no checkpoint exists yet
    with pytest.raises(RunError, match="in its compute mode, not compiled, got compiled"):
        loop(compiled, "a")
    with loop(model, "a") as resumed:
        assert resumed.run().good
    with loop(compiled, "b"):
        pass  # nothing is computed yet
    with loop(model, "b") as resumed:
        assert resumed.run().good


def test_what_cannot_be_compiled_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="must have RMS norms, rotary positions and a SiLU gate"):
        CompiledBackend(network("gpt2"), 1)
    with pytest.raises(InputError, match="must be in float32, bfloat16 or float16"):
        CompiledBackend(network("whole").double(), 1)
    with monkeypatch.context() as limited:
        limited.setattr("ostinato.inference.compiled.forms.MAX_LAYERS", 1)
        with pytest.raises(InputError, match="at most 1 layers"):
            CompiledBackend(network("grouped"), 1)
    inference = CompiledBackend(network("grouped"), 2)
    with pytest.raises(InputError, match=r"slot must be from 0 to 1, got 2"):
        inference.feed([(2, 0, 0)])
    with pytest.raises(InputError, match=r"at most 2048 tokens .* got 2049"):
        inference.feed([(0, 1, 2048)])
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(ModelError, match="a C\\+\\+ compiler must be installed"):
        build.find_compiler()


def test_tiles_are_refused_where_the_processor_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = build.open_kernel()
    without = SimpleNamespace(
        ask_tiles=lambda: 0, scratch_floats=kernel.scratch_floats, most_rows=kernel.most_rows
    )
    monkeypatch.setattr("ostinato.inference.compiled.backend.open_kernel", lambda: without)
    assert not CompiledBackend(network("grouped").to(torch.bfloat16), 1).tiles
    with pytest.raises(InputError, match="tiles must be left out on a processor without AMX"):
        CompiledBackend(network("grouped"), 1, tiles=True)


def test_a_failing_compiler_is_reported(tmp_path: Path) -> None:
    compiler = tmp_path / "cxx"
    compiler.write_text("#!/bin/sh\necho no such flag >&2\nexit 1\n")
    compiler.chmod(0o755)
    with pytest.raises(ModelError, match="got: no such flag"):
        build.compile_to(tmp_path / "kernel.so", str(compiler))


@pytest.mark.slow
def test_a_cut_library_is_compiled_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The system's loader does not refuse it: the process would end at its first use."""
    monkeypatch.setenv("OSTINATO_CACHE", str(tmp_path))
    monkeypatch.setattr(build, "carried_names", list)
    build.find_kernel()
    (library,) = (tmp_path / "native").glob("*.so")
    whole = library.read_bytes()
    library.unlink()  # another file: this process has the first one open
    library.write_bytes(whole[: len(whole) // 10])
    build.find_kernel()
    assert library.stat().st_size == len(whole)


def test_code_is_not_run_from_a_folder_that_others_may_write_to(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    build.check_private(tmp_path)
    tmp_path.chmod(0o777)
    with pytest.raises(ModelError, match=r"writable by you alone, .* got mode 777"):
        build.check_private(tmp_path)


def test_allocations_are_aligned_and_do_not_overlap() -> None:
    memory = LargePages()
    tensors = [memory.zeros((n, 3), torch.bfloat16) for n in range(1, 40)]
    tensors.append(memory.copy(torch.arange(12.0).view(3, 4).T))
    assert all(one.data_ptr() % LINE == 0 for one in tensors)
    spans = sorted((one.data_ptr(), one.data_ptr() + one.nbytes) for one in tensors)
    assert all(end <= start for (_, end), (start, _) in pairwise(spans))
    assert torch.equal(tensors[-1], torch.arange(12.0).view(3, 4).T) and tensors[-1].is_contiguous()
    assert memory.empty((PIECE + 1,), torch.uint8).shape == (PIECE + 1,)


@pytest.mark.skipif("avx2" not in instruction_sets(), reason="the processor has no AVX2")
@pytest.mark.parametrize("bits", [None, 8, 4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_narrower_registers_change_no_bits(
    monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype, bits: int | None
) -> None:
    """Sums have one order at every width, so AVX2 computes what AVX-512 does."""
    model = network("grouped").to(dtype)
    rows = [(slot, 5 + slot, 0) for slot in range(7)]

    def hidden() -> torch.Tensor:
        backend = CompiledBackend(model, 8, bits=bits, tiles=False)
        backend.prefill(7, list(range(20)))
        return torch.cat((backend.feed(rows), backend.feed([(7, 3, 20)])))

    native = hidden()
    monkeypatch.setenv(build.MARCH, "x86-64-v3")
    build.open_kernel.cache_clear()
    narrow = hidden()
    monkeypatch.undo()
    build.open_kernel.cache_clear()
    assert torch.equal(native, narrow)


def test_many_threads_on_few_processors_change_no_bits() -> None:
    """More threads than processors: some wake late, and find their units computed by others."""
    model = network("smollm2")
    rows = [(slot, 3 * slot, 0) for slot in range(16)]
    expected = CompiledBackend(model, 16).feed(rows)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(4 * (os.cpu_count() or 1))
        backend = CompiledBackend(model, 16)
        for _ in range(200):
            assert torch.equal(backend.feed(rows), expected)
    finally:
        torch.set_num_threads(before)


def test_two_threads_of_a_program_compute_side_by_side() -> None:
    model = network("smollm2")
    expected = CompiledBackend(model, 2).feed([(0, 7, 0)])

    def compute() -> bool:
        backend = CompiledBackend(model, 2)
        return all(torch.equal(backend.feed([(0, 7, 0)]), expected) for _ in range(100))

    with ThreadPoolExecutor(2) as pool:
        assert all(pool.map(lambda _: compute(), range(2)))


def test_a_forked_child_computes_with_threads_of_its_own() -> None:
    model = network("smollm2")
    backend = CompiledBackend(model, 2)
    expected = backend.feed([(0, 7, 0)])
    child = os.fork()
    if child == 0:
        os._exit(0 if torch.equal(backend.feed([(0, 7, 0)]), expected) else 1)
    assert os.waitpid(child, 0)[1] == 0
