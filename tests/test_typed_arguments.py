"""A wrong value of any public configuration is refused when it is made, by name: no text or bool
where a number belongs, no NaN, nothing too large, no unknown choice."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import numpy as np
import pytest

from ostinato import adversarial, checks, image, loop, music, remote, text, train
from ostinato.checks import KINDS
from ostinato.decode import SamplingParams
from ostinato.errors import InputError
from ostinato.image.tokens.masked_codes import CodeSettings
from ostinato.image.tokens.network import CodeConfig
from ostinato.image.tokens.vq import VQConfig
from ostinato.loop import Loop, Steps
from ostinato.loop.conditions.parser import NAMES
from ostinato.models import BertConfig, LlamaConfig
from ostinato.refine import STRATEGIES


def sure(text: str) -> bool:
    return True


LLAMA = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "head_dim")
HEADS = {"num_attention_heads": 4, "num_key_value_heads": 4}

# What a configuration must be given; everything else has a default.
GIVEN: dict[type, dict[str, Any]] = {
    loop.Budget: {"name": "tokens", "limit": 3},
    loop.Converges: {"name": "loss"},
    loop.Epochs: {"limit": 2},
    loop.Exceeds: {"name": "loss", "above": 2.0},
    loop.Phrase: {"text": "Bye"},
    loop.Plateau: {"name": "loss"},
    loop.Reaches: {"name": "loss", "below": 2.0},
    loop.Seconds: {"limit": 2.5},
    loop.Steps: {"limit": 3},
    checks.Blocked: {"words": ("a",)},
    checks.Choice: {"texts": ("a", "b")},
    checks.Confidence: {"mean": -2.0},
    checks.Contains: {"texts": ("a",)},
    checks.EndsWith: {"texts": ("a",)},
    checks.Excludes: {"texts": ("a",)},
    checks.Function: {"function": sure},
    checks.JsonSchema: {"schema": {"type": "object"}},
    checks.Judge: {"question": "Is {output} good?", "model": "smollm2"},
    checks.Length: {"max": 3},
    checks.OnTopic: {"column": "message"},
    checks.Regex: {"pattern": "a"},
    checks.Sentiment: {"min": 0.0},
    checks.StartsWith: {"texts": ("a",)},
    remote.Server: {"url": "http://localhost/v1", "model": "m"},
    text.TextTrainingConfig: {"files": (Path("a.txt"),)},
    text.MaskedText: {"parts": ("a", "b"), "tokens": (2,)},
    image.ClassifierConfig: {"names": ("a", "b")},
    image.ClassifiedAs: {"classifier": sure},
    image.ClipScore: {"clip": sure},
    CodeConfig: {"codes": 8, "positions": 4, "words": 2, "prompt_tokens": 1},
    BertConfig: {**dict.fromkeys(LLAMA[:4], 8), "num_attention_heads": 4},
    LlamaConfig: {**dict.fromkeys(LLAMA, 8), **HEADS},
}

CONFIGS: list[type] = [
    *NAMES.values(),
    *KINDS.values(),
    *STRATEGIES.values(),
    *(image.ClassifiedAs, image.Sharpness, image.ClipScore, image.ClassifierConfig),
    *(image.NoiseLevels, image.Renoise, image.UNetConfig, CodeConfig, CodeSettings, VQConfig),
    *(music.Cadence, music.Crossing, music.Parallels, music.Repeats, music.VoiceRange),
    *(text.FillConfig, text.MaskedText, text.TextTrainingConfig, train.TrainingConfig),
    *(adversarial.DuelConfig, adversarial.GanConfig),
    *(adversarial.NonSaturating, adversarial.Relativistic, adversarial.Wasserstein),
    *(loop.CheckpointSchedule, SamplingParams, remote.Server, remote.SpendLimit),
    *(BertConfig, LlamaConfig),
]


def wrong_values(hint: object) -> Iterator[object]:
    """Yield values that are not of a type."""
    kinds = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    names = {get_origin(kind) or kind for kind in kinds}
    if names & {int, float}:
        yield from ("3", "x", True, float("nan"), float("inf"), 10**400, [1], object())
    if int in names and float not in names:
        yield 2.5
    if Literal in names:
        yield from ("nothing like it", 3, ["x"])
    if bool in names:
        yield from (1, 0, "yes", float("nan"))
    if str in names and not names & {Path}:
        yield from (3, True, ["x"], b"x")
    if tuple in names:
        yield from (3, True, [object()], {"x": 1})
    if names <= {Callable, type(None)} and Callable in names:
        yield from (3, "x")


def wrong_fields() -> Iterator[Any]:
    for config in CONFIGS:
        hints = get_type_hints(config)
        for spec in fields(config):
            if spec.init and not spec.name.startswith("_"):
                yield pytest.param(
                    config, spec.name, hints[spec.name], id=f"{config.__name__}.{spec.name}"
                )


@pytest.mark.parametrize(("config", "field", "hint"), list(wrong_fields()))
def test_a_value_of_another_type_is_refused_by_name(config: type, field: str, hint: object) -> None:
    for value in wrong_values(hint):
        with pytest.raises(InputError) as caught:
            config(**{**GIVEN.get(config, {}), field: value})
        assert field in str(caught.value) and " must be " in str(caught.value)


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.__name__)
def test_what_a_configuration_must_be_given_is_taken(config: type) -> None:
    config(**GIVEN.get(config, {}))


def test_numbers_of_numpy_become_python_s_and_lists_tuples() -> None:
    condition = Steps(np.int64(3))  # type: ignore[arg-type]
    assert str(condition) == "Steps(3)" and type(condition.limit) is int
    assert type(SamplingParams(temperature=np.float32(0.5)).temperature) is float  # type: ignore[arg-type]
    assert checks.Contains(texts="a").texts == ("a",)  # type: ignore[arg-type]
    assert checks.Contains(texts=["a", "b"]).texts == ("a", "b")  # type: ignore[arg-type]
    assert text.TextTrainingConfig(files=["a.txt"]).files == (Path("a.txt"),)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"checkpoint": 10}, r"checkpoint must be a CheckpointSchedule.*\(steps=10\)"),
        ({"on_stop": 3}, "on_stop must be a function, got 3"),
        ({"keep": "al"}, "keep must be 'steps' or 'results', got 'al'"),
        ({"keep": "result"}, "Did you mean 'results'?"),
        ({"run": 3}, "run must be a Run or a function or a text or None, got 3"),
        ({"journal": "x", "run": "a"}, "journal must be a Journal or None, got 'x'"),
        ({"spec": 3}, "spec must be a Mapping or None, got 3"),
        ({"until": 3}, "stop condition must be a Condition or a callable, got 3"),
    ],
)
def test_a_wrong_argument_of_a_loop_is_refused_by_name(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Loop(lambda: 1, **{"until": Steps(3), **wrong})


WRITING: list[tuple[dict[str, Any], str]] = [
    ({"prompts": "hello"}, "prompts must be a list of texts, got 'hello'. Write [prompt]."),
    ({"slots": 0}, "slots must be at least 1, got 0."),
    ({"alternatives": -1}, "alternatives must be 0 or more, got -1."),
    ({"num_beams": 1.5}, "num_beams must be a whole number, got 1.5."),
    ({"model": 3}, "model must be a LanguageModel or a Server or a text"),
    ({"chat": "no"}, "chat must be True or False, got 'no'."),
    ({"texts": "a ___", "model": "m"}, "texts must be a list of texts, got 'a ___'."),
    ({"texts": ["a ___"], "model": "m", "steps": 0}, "steps must be at least 1, got 0."),
]


@pytest.mark.parametrize(("given", "message"), WRITING)
def test_wrong_arguments_of_writing_are_refused_before_a_model_is_loaded(
    given: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        if "texts" in given:
            text.fill_gaps(**given)
        else:
            text.write(**{"prompts": ["a"], **given})
