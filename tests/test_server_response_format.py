"""Structured output of a served model: what is asked for as a form or a language is kept to."""

from __future__ import annotations

import json
import sys
import threading
from typing import Any

import openai
import pytest
from pydantic import BaseModel, Field
from served import MESSAGES, asked, ours, post, serving
from tiny import tiny_model

from ostinato.checks import JsonSchema, Regex
from ostinato.errors import InputError
from ostinato.refine import Constrain, Smc
from ostinato.server import Defaults, Scheduler

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "kind": {"enum": ["call", "mail"]},
        "name": {"type": "string", "maxLength": 6},
        "count": {"type": "integer", "minimum": 0, "maximum": 99},
    },
    "required": ["kind", "name", "count"],
    "additionalProperties": False,
}

DEEP: list[Any] = json.loads("[" * 600 + "]" * 600)


def form(schema: dict[str, Any], **more: Any) -> Any:
    return {"type": "json_schema", "json_schema": {"name": "x", "schema": schema, **more}}


def test_an_answer_is_json_of_the_schema_whole_and_streamed(client: openai.OpenAI) -> None:
    given: Any = {"model": "tiny", "messages": MESSAGES, "max_tokens": 60, "n": 3, "seed": 2}
    given["response_format"] = form(SCHEMA, strict=True)
    whole = client.chat.completions.create(**given)
    texts = [choice.message.content or "" for choice in whole.choices]
    assert len(set(texts)) == 3
    for choice in whole.choices:
        assert set(json.loads(choice.message.content or "")) == {"kind", "name", "count"}
        assert JsonSchema(schema=SCHEMA).judge(choice.message.content, {}).passed
        assert choice.finish_reason == "stop"
        assert ours(choice)["accepted"]
        assert ours(choice)["verdicts"][0]["check"] == "response_format"
    streamed = ["", "", ""]
    pieces = 0
    for chunk in client.chat.completions.create(**given, stream=True):
        for one in chunk.choices:
            streamed[one.index] += one.delta.content or ""
            pieces += bool(one.delta.content)
    assert streamed == texts
    assert pieces > 15  # a form takes nothing back: it comes token by token


def test_a_class_of_pydantic_is_parsed(client: openai.OpenAI) -> None:
    class Call(BaseModel):
        name: str = Field(max_length=5)
        urgent: bool

    answer = client.chat.completions.parse(
        model="tiny", messages=MESSAGES, max_tokens=60, seed=1, response_format=Call
    )
    assert isinstance(answer.choices[0].message.parsed, Call)


@pytest.mark.parametrize("limit", [12, 30])
def test_any_object_is_ended_within_its_limit(client: openai.OpenAI, limit: int) -> None:
    for seed in range(4):
        (choice,) = client.chat.completions.create(
            model="tiny",
            messages=MESSAGES,
            max_tokens=limit,
            seed=seed,
            temperature=1.5,
            response_format={"type": "json_object"},
        ).choices
        assert isinstance(json.loads(choice.message.content or ""), dict)
        assert ours(choice)["tokens"]["reply"] <= limit


def test_a_form_changes_no_bit_of_the_others_nor_they_of_it(place: tuple[int, Scheduler]) -> None:
    orders = [
        asked(seed=1, max_tokens=24),
        asked(seed=1, max_tokens=60, response_format=form(SCHEMA)),
        asked(seed=2, max_tokens=24),
        asked(seed=2, max_tokens=60, response_format={"type": "json_object"}),
    ]
    alone = [post(place[0], order)[1]["choices"] for order in orders]
    together: dict[int, Any] = {}

    def ask(n: int) -> None:
        together[n] = post(place[0], orders[n])[1]["choices"]

    threads = [threading.Thread(target=ask, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [together[n] for n in range(4)] == alone


def test_a_form_holds_beside_checks(client: openai.OpenAI) -> None:
    checks = [{"kind": "excludes", "texts": ["1", "7"], "whole": False}]
    (choice,) = client.chat.completions.create(
        model="tiny",
        messages=MESSAGES,
        max_tokens=60,
        seed=6,
        response_format=form(SCHEMA),
        extra_body={"checks": checks},
    ).choices
    text = choice.message.content or ""
    assert JsonSchema(schema=SCHEMA).judge(text, {}).passed
    assert not {"1", "7"} & set(text)
    assert ours(choice)["accepted"] and len(ours(choice)["verdicts"]) == 2


def test_a_completion_has_a_form_and_log_probabilities_too(client: openai.OpenAI) -> None:
    (choice,) = client.completions.create(
        model="tiny",
        prompt="The reply",
        max_tokens=60,
        seed=1,
        logprobs=1,
        extra_body={"response_format": form(SCHEMA)},
    ).choices
    assert JsonSchema(schema=SCHEMA).judge(choice.text, {}).passed
    assert choice.logprobs is not None and choice.logprobs.tokens is not None
    assert "".join(choice.logprobs.tokens) == choice.text


@pytest.mark.parametrize(
    ("value", "param", "said"),
    [
        ("json", "response_format", "must be an object"),
        ({"type": "xml"}, "response_format.type", "one of text, json_object, json_schema"),
        ({"type": "json_schema"}, "response_format.json_schema.schema", "Add it"),
        (form(SCHEMA, strict="yes"), "response_format.json_schema.strict", "true or false"),
        (form(SCHEMA, mode=1), "response_format.json_schema.mode", "not known"),
        (form({"type": "obj"}), "response_format.json_schema.schema", "a JSON schema"),
        (form({"$ref": "http://127.0.0.1:1/x"}), "response_format.json_schema.schema", "fetched"),
        (form({"enum": DEEP}), "response_format.json_schema.schema", "at most 64 levels deep"),
        (form({"type": "string", "minLength": 3, "maxLength": 2}), "response_format", "followed"),
        (form({"type": "array", "uniqueItems": True}), "response_format", "uniqueItems"),
        (form({"type": "string", "minLength": 300}), "response_format", "limit of 8 tokens"),
    ],
    ids=str,
)
def test_a_form_that_cannot_be_followed_is_refused(
    place: tuple[int, Scheduler], value: Any, param: str, said: str
) -> None:
    for stream in (False, True):
        status, answer = post(place[0], asked(response_format=value, stream=stream))
        assert (status, answer["error"]["param"]) == (400, param)
        assert said in answer["error"]["message"]


def test_a_prefilled_answer_has_no_response_format(place: tuple[int, Scheduler]) -> None:
    begun = [*MESSAGES, {"role": "assistant", "content": "{"}]
    more = {"messages": begun, "continue_final_message": True}
    status, answer = post(place[0], asked(response_format={"type": "json_object"}, **more))
    assert (status, answer["error"]["param"]) == (400, "continue_final_message")


# Constrain --------------------------------------------------------------------------------------

DIGITS = {"kind": "regex", "pattern": "[0-9]{3}-[0-9]{2}"}


def test_constrain_masks_what_checks_say(place: tuple[int, Scheduler]) -> None:
    more = {"checks": [DIGITS], "strategy": "constrain", "seed": 3}
    status, answer = post(place[0], asked(max_tokens=20, **more))
    assert status == 200
    (choice,) = answer["choices"]
    assert Regex(pattern=str(DIGITS["pattern"])).judge(choice["message"]["content"], {}).passed
    told = choice["ostinato"]
    assert told["accepted"]
    assert (told["rounds"], told["backtracks"]) == (1, 0)  # nothing was taken back


def test_constrain_leaves_to_backtrack_what_is_no_language(place: tuple[int, Scheduler]) -> None:
    checks = [DIGITS, {"kind": "repetition"}]
    status, answer = post(place[0], asked(max_tokens=20, checks=checks, strategy="constrain"))
    assert status == 200
    assert answer["choices"][0]["ostinato"]["accepted"]


def test_constrain_needs_a_check_that_is_a_language(place: tuple[int, Scheduler]) -> None:
    for checks in ([], [{"kind": "repetition"}]):
        status, answer = post(place[0], asked(checks=checks, strategy="constrain"))
        assert (status, answer["error"]["param"]) == (400, "strategy")
        assert "written as a language" in answer["error"]["message"]


def test_the_one_who_serves_can_constrain() -> None:
    defaults = Defaults(checks=(Regex(pattern="[a-c]{5}"),), strategy=Constrain())
    with serving(defaults=defaults, slots=2) as (port, _):
        (choice,) = post(port, asked(max_tokens=20))[1]["choices"]
        assert Regex(pattern="[a-c]{5}").judge(choice["message"]["content"], {}).passed
        assert choice["ostinato"]["backtracks"] == 0


def test_a_strategy_of_many_lanes_cannot_be_served() -> None:
    with pytest.raises(InputError, match=r"served model must be 'backtrack' or .*'constrain'"):
        Scheduler(tiny_model(), defaults=Defaults(strategy=Smc()))


def test_without_the_extra_it_says_so(
    place: tuple[int, Scheduler], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "llguidance", None)
    new = {"type": "object", "properties": {"unseen": {"const": 5}}}
    status, answer = post(place[0], asked(response_format=form(new)))
    assert (status, answer["error"]["param"]) == (400, "response_format")
    assert "pip install 'ostinato[constrain]'" in answer["error"]["message"]
    check = {"kind": "regex", "pattern": "unseen"}
    status, answer = post(place[0], asked(checks=[check], strategy="constrain"))
    assert (status, answer["error"]["param"]) == (400, "strategy")
    assert "pip install 'ostinato[constrain]'" in answer["error"]["message"]
