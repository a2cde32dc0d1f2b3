"""Beam search: what `transformers` finds, as a lane process."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch
from test_decode import ITEMS
from tiny import tiny_model

from ostinato.decode import Beam, TokenPrompt, plain_prompt
from ostinato.errors import EditError, InputError, ItemError
from ostinato.journal import StopKind
from ostinato.loop import Lane, Lanes, Loop, Policy, Steps, Text, Timeline
from ostinato.loop.lane_state import is_end
from ostinato.models import LanguageModel, Llama
from ostinato.testing import check_lane_process


def model_that_ends(bias: float) -> LanguageModel:
    """Return a tiny model whose end token is the more likely, the higher the bias."""
    model = tiny_model()
    network = Llama(model.llama().config, seed=5)
    for parameter in network.parameters():
        parameter.data.mul_(4)
    with torch.no_grad():
        tokens = torch.arange(3, 60)[None]
        mean = network(tokens)[0].mean(0)
        network.model.embed_tokens.weight[2] += bias * mean / mean.norm()
    return replace(model, network=network)


def beam(slots: int = 2, model: LanguageModel | None = None, **settings: Any) -> Beam:
    model = model or model_that_ends(1.2)
    settings.setdefault("limit", 12)
    return Beam(model, plain_prompt(model.tokenizer.encode), slots=slots, **settings)


def search(process: Beam, item: str) -> Text:
    process.start(Lane("a"), item)
    while not is_end(process.step()["a"]):
        pass
    output = process.output("a")
    assert isinstance(output, Text)
    process.drop("a")
    return output


@pytest.fixture
def theirs() -> Any:
    transformers = pytest.importorskip("transformers")
    values = tiny_model().llama().config.to_dict()
    network = transformers.LlamaForCausalLM(transformers.LlamaConfig(**values))
    weights = model_that_ends(1.2).llama().state_dict()
    network.load_state_dict({**weights, "lm_head.weight": weights["model.embed_tokens.weight"]})
    return network.eval()


@pytest.mark.parametrize("beams", [2, 4])
@pytest.mark.parametrize("length_penalty", [0.0, 1.0, 2.0, -0.5])
def test_it_finds_what_transformers_finds(theirs: Any, beams: int, length_penalty: float) -> None:
    model, ended = model_that_ends(1.2), 0
    process = beam(model=model, num_beams=beams, length_penalty=length_penalty)
    for text in ITEMS.values():
        prompt = model.tokenizer.encode(str(text))
        expected = theirs.generate(
            torch.tensor([prompt]),
            num_beams=beams,
            length_penalty=length_penalty,
            max_new_tokens=12,
            do_sample=False,
            eos_token_id=2,
            pad_token_id=0,
            return_dict_in_generate=True,
            output_scores=True,
        )
        process.start(Lane("a"), text)
        report: Any = {}
        while not is_end(report):
            (report,) = process.step().values()
        output = process.output("a")
        assert isinstance(output, Text)
        sequence = expected.sequences[0, len(prompt) :].tolist()
        assert list(output.tokens) == sequence[: len(output.tokens)]
        assert set(sequence[len(output.tokens) :]) <= {0}
        assert report["score"] == pytest.approx(float(expected.sequences_scores[0]), abs=1e-4)
        length = len(output.tokens) ** length_penalty
        assert sum(output.logprobs) / length == pytest.approx(report["score"], abs=1e-4)
        ended += output.ended
        process.drop("a")
    assert ended > 0  # some reach an end token


def test_beam_search_conforms() -> None:
    check_lane_process(lambda n: beam(n, num_beams=3), ITEMS, steps=9, edits={"forbid": [7, 9]})


def test_more_beams_find_more_likely_texts() -> None:
    model = model_that_ends(-1.0)

    def total(beams: int) -> float:
        process = beam(1, model, num_beams=beams, length_penalty=0.0, limit=10)
        return sum(sum(search(process, str(item)).logprobs) for item in ITEMS.values())

    assert total(8) > total(2) + 0.1


def test_a_text_is_as_long_as_its_limit_or_the_context_allows() -> None:
    model = model_that_ends(-1.0)
    lanes = Lanes(beam(2, model, limit=5), ITEMS.items(), Policy(each=Steps(99)))
    rows: list[Any] = [
        one.to_json() for step in Loop(lanes, until=Steps(99)) for one in step.results
    ]
    process = beam(1, model, limit=5)
    texts = [search(process, str(item)) for item in ITEMS.values()]
    assert max(len(text.tokens) for text in texts) == 5
    assert all(text.ended or len(text.tokens) == 5 for text in texts)
    for row in rows:
        cut = row["stopped"]["kind"] == StopKind.BUDGET.value
        sentence = "The most likely text has 5 tokens, the limit." if cut else "finished"
        assert sentence in row["stopped"]["sentence"]
    kinds = {row["stopped"]["kind"] for row in rows}
    assert kinds == {StopKind.BUDGET.value} | {StopKind.ENDED.value for text in texts if text.ended}

    def long(item: object, edits: Mapping[str, object]) -> TokenPrompt:
        return TokenPrompt([5] * int(str(item)))

    process = Beam(model, long, limit=9, slots=1)
    assert len(search(process, "252").tokens) == 4
    with pytest.raises(ItemError, match="must have 1 to 255 tokens, got 256"):
        process.start(Lane("b"), "256")


def test_a_token_that_is_forbidden_is_in_no_beam_there() -> None:
    process = beam(1, model_that_ends(-1.0))
    process.start(Lane("a"), "The")
    first = process.step()["a"]["put"]
    process.rewind(Lane("a", backtracks=1, edits=Timeline().added(0, {"forbid": first})), 0)
    assert not set(first) & set(process.step()["a"]["put"])  # type: ignore[call-overload]


def test_wrong_settings_and_edits_are_refused() -> None:
    with pytest.raises(InputError, match="num_beams must be 2 or more, got 1"):
        beam(num_beams=1)
    with pytest.raises(InputError, match="limit must be at least 1, got 0"):
        beam(limit=0)
    with pytest.raises(EditError, match="Unknown edit 'temperature' of a lane of Beam"):
        beam().start(Lane("a", edits=Timeline().added(0, {"temperature": 1.0})), "The")
    with pytest.raises(EditError, match="forbid must be a list of tokens from 0 to"):
        beam().start(Lane("a", edits=Timeline().added(0, {"forbid": [1 << 30]})), "The")


@pytest.mark.parametrize("at", [0, 2])
def test_a_text_that_no_token_may_follow_ends_and_says_so(at: int) -> None:
    model = tiny_model()
    beam = Beam(model, plain_prompt(model.tokenizer.encode), num_beams=2, limit=5)
    everything = list(range(model.tokenizer.vocab_size))
    beam.start(Lane("a", edits=Timeline().added(at, {"forbid": everything})), "Hello")
    reports = [report["a"] for report in iter(beam.step, {})]
    assert reports[-1]["ended"] == "Every token is forbidden here."
    assert len(reports) == at + 1
    assert len(beam.output("a").tokens) == at
    again = Beam(model, plain_prompt(model.tokenizer.encode), num_beams=2, limit=5)
    again.start(Lane("a", past=tuple(reports)), "Hello")
    assert again.output("a") == beam.output("a")
