"""A GGUF file through llama.cpp: the same logits as ours, rewound, or refused with a fix."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from tempfile import mkdtemp

import pytest
import torch
from test_models_gguf_families import network
from tiny_gguf import write_gguf

from ostinato.decode import Decode, SamplingParams, plain_prompt
from ostinato.errors import InputError, ModelError
from ostinato.inference import open_backend
from ostinato.journal import Stopped
from ostinato.loop import Accept, Action, GoBack, History, Lanes, Loop, Policy, Steps, Text
from ostinato.models import LanguageModel, LlamaCppNetwork, load_model
from ostinato.testing import check_lane_process

pytest.importorskip("llama_cpp")

TOKENS = [(7 * i + 3) % 200 for i in range(90)]


@cache
def file() -> Path:
    path = Path(mkdtemp(prefix="llama-cpp-")) / "tiny.gguf"
    write_gguf(path, network("llama"))
    return path


@cache
def model() -> LanguageModel:
    return load_model(f"llama:{file()}")


@cache
def ours() -> LanguageModel:
    return load_model(file(), dtype=torch.float32)


def test_logits_are_those_of_our_network() -> None:
    assert isinstance(model().network, LlamaCppNetwork)
    found, expected = open_backend(model(), 2), open_backend(ours(), 2)
    rows = [(1, TOKENS[p], p) for p in range(70, 90)]
    for backend in (found, expected):
        backend.prefill(1, TOKENS[:70])
    for row in rows:
        torch.testing.assert_close(
            found.logits(found.feed([row])),
            expected.logits(expected.feed([row])),
            rtol=2e-2,
            atol=2e-2,
        )
    assert found.counts.generated == expected.counts.generated == 20


def test_going_back_leaves_nothing_behind() -> None:
    backend = open_backend(model(), 2)
    backend.prefill(0, TOKENS[:64])
    row = (0, TOKENS[64], 64)
    before = backend.feed([row])
    backend.feed([(0, 5, position) for position in range(65, 75)])
    assert torch.equal(backend.feed([row]), before)
    backend.copy(0, 1, 64)
    assert torch.equal(backend.feed([(1, TOKENS[64], 64)]), before)


def test_a_shared_prompt_is_not_changed_by_one_of_its_owners() -> None:
    backend = open_backend(model(), 2)
    backend.prefill(0, TOKENS[:64])
    row = (0, TOKENS[64], 64)
    before = backend.feed([row])
    backend.copy(0, 1, 64)
    backend.feed([(1, 9, 30)])  # goes back in the shared part
    assert torch.equal(backend.feed([row]), before)


def test_lanes_of_llama_cpp_conform() -> None:
    def make(slots: int) -> Decode:
        prompt = plain_prompt(model().tokenizer.encode)
        return Decode(model(), prompt, slots=1 + slots, sampling=SamplingParams(temperature=1.0))

    items = {f"item{n}": text for n, text in enumerate(("One two", "Hello there", "Is it?"))}
    check_lane_process(make, items)


def test_one_slot_repeats_its_bits_and_several_promise_nothing() -> None:
    prompt = plain_prompt(model().tokenizer.encode)
    reports = []
    for _ in range(2):
        decode = Decode(model(), prompt, slots=1, sampling=SamplingParams(temperature=1.0))
        assert decode.deterministic
        loop = Loop(
            Lanes(decode, [("a", "One"), ("b", "Two")], Policy(each=Steps(6))), until=Steps(100)
        )
        reports.append([dict(step.lanes) for step in loop])
    assert reports[0] == reports[1]
    assert not Decode(model(), prompt, slots=2).deterministic


def test_backtracking_goes_back_in_llama_cpp() -> None:
    prompt = plain_prompt(model().tokenizer.encode)
    written: list[int] = []

    def another(stopped: Stopped, history: History) -> Action:
        assert isinstance(history.output, Text)
        written.append(history.output.tokens[2])
        return Accept() if len(written) > 2 else GoBack(2, {"forbid": [written[-1]]})

    lanes = Lanes(Decode(model(), prompt), [("a", "One")], Policy(each=Steps(4), on_stop=another))
    rows = [one.to_json() for step in Loop(lanes, until=Steps(100)) for one in step.results]
    assert rows[0]["backtracks"] == 2
    assert written[1] != written[0] and written[2] != written[1]


def test_what_cannot_be_computed_is_refused() -> None:
    backend = open_backend(model(), 2)
    with pytest.raises(InputError, match="slot must be from 0 to 1"):
        backend.feed([(2, 1, 0)])
    with pytest.raises(InputError, match="position must be from 0 to 0"):
        backend.feed([(0, 1, 5)])
    with pytest.raises(InputError, match="token must be from 0 to"):
        backend.feed([(0, 1 << 20, 0)])
    with pytest.raises(InputError, match="start must be a multiple"):
        backend.prefill(0, [1], 3)


def test_what_llama_cpp_does_not_take_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="adapter must be left out"):
        load_model(f"llama:{file()}", adapter="support")
    with pytest.raises(ModelError, match="dtype must be left out"):
        load_model(f"llama:{file()}", dtype=torch.float32)
    with pytest.raises(ModelError, match="must be a GGUF file, got none there"):
        load_model(f"llama:{tmp_path / 'none.gguf'}")
    with pytest.raises(ModelError, match=r"the network of llama:.* must be one of"):
        model().llama()
    with pytest.raises(ModelError, match="must be called through a backend"):
        model().network(torch.tensor([[1, 2]]))
