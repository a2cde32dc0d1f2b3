"""Sequential Monte Carlo keeps the model's distribution given that the checks pass."""

from __future__ import annotations

import itertools
import math
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lane_rows import lane_rows
from tiny import tiny_model
from tokenizers import Tokenizer as Backend
from tokenizers import decoders, models, pre_tokenizers

from ostinato.checks import Function, Length
from ostinato.decode import Constraint, Decode, SamplingParams, plain_prompt
from ostinato.errors import InputError
from ostinato.loop import Lanes, Loop, Policy, Steps
from ostinato.models import LanguageModel, Llama, LlamaConfig, Tokenizer
from ostinato.refine import Backtrack, Refine, Resample, Smc
from ostinato.refine.strategies.smc import (
    ParticleSampler,
    ancestor_indices,
    effective,
    shares,
    systematic,
    total,
)
from ostinato.testing import check_lane_process

LETTERS = "abcd"
LONG = 3


@cache
def letters_model() -> LanguageModel:
    """A model of four letters and an end, whose texts can be counted out."""
    vocabulary = {letter: n for n, letter in enumerate([*LETTERS, "<end>"])}
    backend = Backend(models.BPE(vocabulary, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(["<end>"])
    sizes = {
        "vocab_size": 5,
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "max_position_embeddings": 128,
        "tie_word_embeddings": False,
    }
    network = Llama(LlamaConfig.from_dict(sizes), seed=6)
    for parameter in network.parameters():
        parameter.data.mul_(4)
    config = LlamaConfig.from_dict(sizes)
    return LanguageModel(network, Tokenizer(backend, eos_ids=[4]), config, Path("x"), "letters")


def passes(text: str) -> bool:
    """A text with the most likely first letter seldom passes, the others do."""
    first = most_likely()
    return len(text) == LONG and (text[0] != first or text[1] == text[2] == rarest(first))


def hopeless(text: str) -> bool:
    """Whether no continuation of a beginning passes."""
    first = most_likely()
    return text[:1] == first and any(letter != rarest(first) for letter in text[1:])


def most_likely() -> str:
    return max(LETTERS, key=lambda letter: share_of(letter))


@cache
def share_of(letter: str) -> float:
    return sum(share for text, share in shares_of_texts().items() if text[0] == letter)


@cache
def rarest(first: str) -> str:
    texts = shares_of_texts()
    return min(LETTERS, key=lambda x: sum(s for t, s in texts.items() if t[:2] == first + x))


@cache
def shares_of_texts() -> Mapping[str, float]:
    """Return every text of three letters with its probability, the end token left out."""
    network, start = letters_model().network, [0]
    found = {}
    for letters in itertools.product(range(len(LETTERS)), repeat=LONG):
        tokens = torch.tensor([[*start, *letters]])
        with torch.inference_mode():
            hidden = network(tokens)[0]
            logits = torch.nn.functional.linear(hidden, network.state_dict()["lm_head.weight"])[
                :, : len(LETTERS)
            ].double()
        logprobs = torch.log_softmax(logits, -1)
        chosen = [float(logprobs[n, letter]) for n, letter in enumerate(letters)]
        found["".join(LETTERS[n] for n in letters)] = math.exp(sum(chosen))
    return found


def conditioned() -> dict[str, float]:
    kept = {text: share for text, share in shares_of_texts().items() if passes(text)}
    whole = sum(kept.values())
    return {text: share / whole for text, share in kept.items()}


def distance(texts: list[str]) -> float:
    """Return the total variation distance of some texts' shares to those conditioned on passing."""
    counts, exact = Counter(texts), conditioned()
    assert set(counts) <= set(exact), set(counts) - set(exact)
    return sum(abs(counts[text] / len(texts) - share) for text, share in exact.items()) / 2


CHECK = Function(
    function=lambda text: passes(str(text)), prefix=lambda text: not hopeless(str(text))
)
# No end token is drawn: all texts have three letters, and each is followed by one.
SAMPLING = SamplingParams(temperature=1.0, logit_bias={4: -1e9})


def accepted(strategy: Any, count: int, seed: int = 3) -> list[str]:
    """Return the accepted texts of as many items."""
    job = Refine(
        letters_model(),
        [{"id": n, "prompt": "a"} for n in range(count)],
        prompt="{prompt}",
        checks=[CHECK],
        strategy=strategy,
        sampling=SAMPLING,
        max_new_tokens=LONG,
        seed=seed,
        slots=64,
    )
    rows = lane_rows(job)
    return [str(row["output"]) for row in rows if row["accepted"]]


def test_the_test_case_distinguishes_the_strategies() -> None:
    lost = sum(share for text, share in shares_of_texts().items() if not passes(text))
    assert 0.3 < lost < 0.95
    assert abs(sum(shares_of_texts().values()) - 1) < 1e-9


@pytest.mark.slow
def test_particles_give_the_conditioned_distribution_and_backtracking_does_not() -> None:
    weighed = distance(accepted(Smc(particles=16), 600))
    taken_back = distance(accepted(Backtrack(), 600))
    again = distance(accepted(Resample(rounds=60), 600))
    assert weighed < 0.13, (weighed, taken_back, again)
    assert again < 0.13
    assert taken_back > 0.25


def test_few_particles_are_nearer_to_it_than_backtracking() -> None:
    assert distance(accepted(Smc(particles=8), 150)) + 0.1 < distance(accepted(Backtrack(), 150))


# The process --------------------------------------------------------------------------------------


def particles(slots: int, count: int = 3, failure_temperature: float = 0.0) -> ParticleSampler:
    model = tiny_model()
    decode = Decode(
        model,
        plain_prompt(model.tokenizer.encode),
        sampling=SamplingParams(temperature=1.3),
        slots=slots * count,
        limit=10,
    )
    checks = [
        Function(function=lambda t: "e" not in t, prefix=lambda t: "e" not in t),
        Length(max=4),
    ]
    return ParticleSampler(
        decode, checks, count=count, threshold=0.9, failure_temperature=failure_temperature
    )


@pytest.mark.parametrize("failure_temperature", [0.0, 0.5])
def test_a_particle_sampler_conforms(failure_temperature: float) -> None:
    items = {"a": "Hello", "b": "The reply", "c": "Can you help me?"}
    check_lane_process(
        lambda slots: particles(slots, failure_temperature=failure_temperature),
        items,
        steps=9,
        edits={"temperature": 2},
    )


def test_particles_are_resampled_and_report_the_evidence() -> None:
    lanes = Lanes(
        particles(2), [("a", "Hello"), ("b", "The reply")], Policy(each=Steps(10)), seed=4
    )
    reports = [lane.report for step in Loop(lanes, until=Steps(99)) for lane in step.lanes.values()]
    assert any("parents" in report for report in reports)
    assert all(0 <= report["ess"] <= 3 + 1e-9 for report in reports)  # type: ignore[operator]
    evidence = [float(str(r["evidence"])) for r in reports if "evidence" in r]
    assert all(value <= 1e-9 for value in evidence) and min(evidence) < 0


def test_a_fork_continues_as_a_restored_lane_would() -> None:
    """What is copied has the bits of what is computed again."""
    model = tiny_model()

    def decode() -> Decode:
        return Decode(
            model,
            plain_prompt(model.tokenizer.encode),
            sampling=SamplingParams(temperature=1),
            slots=2,
        )

    from ostinato.loop import Lane

    one = decode()
    one.start(Lane("source"), "Hello there")
    past = [dict(one.step()["source"]) for _ in range(5)]
    one.fork("source", Lane("copy"))
    other = decode()
    other.start(Lane("copy", past=tuple(past)), "Hello there")
    for _ in range(6):
        forked, brought = one.step()["copy"], other.step()["copy"]
        assert {**forked, "computed": 0} == {**brought, "computed": 0}


def test_a_failed_check_costs_what_failure_temperature_says() -> None:
    job = Refine(
        letters_model(),
        [{"id": n, "prompt": "a"} for n in range(40)],
        prompt="{prompt}",
        checks=[CHECK],
        strategy=Smc(particles=4, failure_temperature=1e6, rounds=1),
        sampling=SAMPLING,
        max_new_tokens=LONG,
        slots=16,
    )
    rows = lane_rows(job)
    assert 0 < sum(bool(row["accepted"]) for row in rows) < 40  # it hardly counts


# Weights ------------------------------------------------------------------------------------------


@given(
    st.lists(st.floats(0, 1), min_size=1, max_size=9).filter(lambda p: sum(p) > 1e-3),
    st.floats(0, 1, exclude_max=True),
)
@settings(max_examples=60, deadline=None, database=None)
def test_systematic_draws_are_within_one_of_their_share(values: list[float], u: float) -> None:
    whole = sum(values)
    counts = systematic([value / whole for value in values], u)
    assert sum(counts) == len(values)
    for value, count in zip(values, counts, strict=True):
        assert abs(count - value / whole * len(values)) < 1 + 1e-9
        assert count == 0 or value > 0
    parents = ancestor_indices(counts)
    assert Counter(parents) == Counter({n: count for n, count in enumerate(counts) if count})
    assert all(parents[n] == n for n, count in enumerate(counts) if count)


def test_weights_are_kept_as_logarithms() -> None:
    weights = [-1000.0, -1000.0 + math.log(3), -math.inf]
    assert total(weights) == pytest.approx(-1000 + math.log(4))
    assert shares(weights) == pytest.approx([0.25, 0.75, 0])
    assert effective(weights) == pytest.approx(1.6)
    assert effective([-math.inf] * 3) == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"particles": 1}, "particles must be at least 2"),
        ({"threshold": 2.0}, r"threshold must be in \[0, 1\]"),
        ({"failure_temperature": -1.0}, "failure_temperature must be 0"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Smc(**options)


@pytest.mark.parametrize("pattern", ["(bc)*", "[bcd]{1,4}"])
def test_a_constraint_holds_for_a_model_without_an_end(pattern: str) -> None:
    model = letters_model()
    endless = replace(model, tokenizer=Tokenizer(model.tokenizer.backend, eos_ids=[]))
    decode = Decode(
        endless,
        plain_prompt(lambda text: [0]),
        constraint=Constraint.regex(pattern),
        limit=4,
        sampling=SamplingParams(temperature=1.0),
        slots=8,
    )
    lanes = Lanes(decode, [(str(n), "") for n in range(8)], Policy(each=Steps(4)), seed=5)
    rows = [one.to_json() for step in Loop(lanes, until=Steps(99)) for one in step.results]
    assert len(rows) == 8
    assert all(re.fullmatch(pattern, str(row["output"])) for row in rows)
