"""Speculative decoding: the same reports as without, whatever is drafted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
from test_decode import ITEMS
from tiny import tiny_model

from ostinato.decode import (
    Decode,
    DraftModel,
    DraftProposer,
    PromptLookup,
    SamplingParams,
    plain_prompt,
)
from ostinato.decode.speculative import DraftRequest
from ostinato.errors import InputError
from ostinato.loop import Lane, Lanes, Loop, Policy, Steps, Timeline
from ostinato.models import LanguageModel, Llama
from ostinato.testing import check_lane_process

SAMPLINGS = {
    "greedy": SamplingParams(),
    "sampled": SamplingParams(temperature=1.0, top_k=20),
    "penalty": SamplingParams(temperature=0.7, top_p=0.9, repetition_penalty=1.3),
}


def another() -> LanguageModel:
    model = tiny_model()
    return replace(model, network=Llama(model.llama().config, seed=9), name="another")


class Wrong(DraftProposer):
    """Proposes what never comes, up to the end of the block."""

    def propose(self, requests: Sequence[DraftRequest], count: int) -> list[list[int]]:
        return [[3] * count for _ in requests]


PROPOSERS: dict[str, Callable[[], DraftProposer]] = {
    "lookup": lambda: PromptLookup(5, longest=2, shortest=1),
    "the model itself": lambda: DraftModel(tiny_model(), 4),
    "another model": lambda: DraftModel(another(), 3),
    "wrong": lambda: Wrong(15),
}


def decode(
    proposer: DraftProposer | None = None,
    slots: int = 4,
    sampling: SamplingParams | None = None,
    **more: Any,
) -> Decode:
    prompt = plain_prompt(tiny_model().tokenizer.encode)
    sampling = sampling or SAMPLINGS["sampled"]
    return Decode(tiny_model(), prompt, slots=slots, sampling=sampling, proposer=proposer, **more)


def reports(process: Decode, steps: int = 16, **lane: Any) -> list[dict[str, Any]]:
    for key, item in ITEMS.items():
        process.start(Lane(key, 7, **lane), item)
    return [{key: dict(report) for key, report in process.step().items()} for _ in range(steps)]


@pytest.mark.parametrize("kind", PROPOSERS)
@pytest.mark.parametrize("sampling", SAMPLINGS.values(), ids=SAMPLINGS)
def test_reports_are_those_without_drafts(kind: str, sampling: SamplingParams) -> None:
    proposer = PROPOSERS[kind]()
    speculative = decode(proposer, sampling=sampling, alternatives=3)
    plain = decode(sampling=sampling, alternatives=3)
    assert reports(speculative) == reports(plain)
    assert proposer.stats.drafted > 0
    if kind == "the model itself":  # the same numbers draw the same tokens
        assert proposer.stats.accepted > 0.7 * proposer.stats.drafted
    if kind == "wrong":
        assert proposer.stats.accepted == 0


@pytest.mark.parametrize("kind", PROPOSERS)
def test_speculative_decoding_conforms(kind: str) -> None:
    edits = {"forbid": [5, 6], "temperature": 0.5, "bias": {7: 3.0}}
    check_lane_process(lambda n: decode(PROPOSERS[kind](), n), ITEMS, steps=10, edits=edits)


def test_accepted_tokens_are_handed_out_one_per_step() -> None:
    process = decode(DraftModel(tiny_model(), 4), slots=1)
    process.start(Lane("a", 1), "The")
    passes: list[int] = []
    feed = process._inference.feed

    def counted(rows: Sequence[tuple[int, int, int]]) -> Any:
        passes.append(len(rows))
        return feed(rows)

    process._inference.feed = counted  # type: ignore[method-assign]
    for step in range(1, 11):
        (report,) = process.step().values()
        assert report["tokens"] == 1 and report["computed"] == int(step > 1)
    assert passes == [5, 5]  # a row and four accepted draft tokens, twice


def test_going_back_drops_what_was_computed_ahead() -> None:
    process, plain = decode(DraftModel(tiny_model(), 4), slots=1), decode(slots=1)
    for one in (process, plain):
        one.start(Lane("a", 1), "The")
        past = [one.step()["a"] for _ in range(6)]
        edits = Timeline().added(5, {"forbid": [past[5]["token"]], "temperature": 2.0})
        one.rewind(Lane("a", 1, backtracks=1, edits=edits), 5)
    assert not process._speculator._drafts
    for _ in range(8):
        assert process.step() == plain.step()


def test_a_text_runs_to_the_end_of_the_context() -> None:
    def text(proposer: DraftProposer | None) -> Any:
        model = tiny_model(context=48)
        prompt = plain_prompt(model.tokenizer.encode)
        process = Decode(model, prompt, slots=1, proposer=proposer)
        lanes = Lanes(process, [("a", "The")], Policy(each=Steps(99)))
        return [one.to_json() for step in Loop(lanes, until=Steps(99)) for one in step.results]

    assert text(PromptLookup(9, shortest=1)) == text(None)
    assert text(DraftModel(tiny_model(context=48), 9)) == text(None)


def test_lookup_takes_what_followed_last_time_after_the_longest_match() -> None:
    def found(tokens: Sequence[int], count: int = 3) -> list[int]:
        request = DraftRequest("a", tokens, lambda draft: None)  # type: ignore[arg-type, return-value]
        return PromptLookup(3).propose([request], count)[0]

    assert found([1, 2, 3, 4, 9, 2, 3, 5, 0, 1, 2, 3]) == [4, 9, 2]
    assert found([1, 2, 3, 4, 9, 2, 3, 5, 0, 7, 2, 3]) == [5, 0, 7]
    assert found([1, 2, 3, 1, 2], count=2) == [3, 1]
    assert found([1, 2, 3]) == []


def test_a_draft_model_of_another_vocabulary_is_refused() -> None:
    with pytest.raises(InputError, match="must have the model's vocabulary"):
        decode(DraftModel(tiny_model(vocabulary=300), 4))
    with pytest.raises(InputError, match="must be 1 or more, got 0"):
        PromptLookup(0)
    with pytest.raises(InputError, match="longest must be at least shortest"):
        PromptLookup(longest=1)
