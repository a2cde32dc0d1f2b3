"""A model as a server: the `openai` client gets its answers, and errors in the API's shape."""

from __future__ import annotations

import http.client
import json
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import openai
import pytest
import torch
from lane_rows import lane_rows
from served import MESSAGES, asked, ours, post, serving
from tiny import save_tiny, tiny_model

from ostinato.checks import BaseCheck, Excludes, JsonSchema, Length, Regex, judge_all
from ostinato.checks.deadline import Deadline, left
from ostinato.decode import SamplingParams
from ostinato.journal import StopKind, Stopped
from ostinato.loop import Item, LaneResult, Loop, Phrase, PrefixVerdict, Steps, Verdict
from ostinato.refine import Resample, Strategy
from ostinato.refine.refine import Refine
from ostinato.refine.strategies.backtrack import Backtrack
from ostinato.refine.strategies.base import Abort
from ostinato.remote import Server
from ostinato.server import Defaults, Scheduler
from ostinato.server.requests import cut_at, held_back
from ostinato.server.responses import finish_reason
from ostinato.text import write

VOCAB = tiny_model().config.vocab_size
DEEP: list[Any] = json.loads("[" * 600 + "]" * 600)

# Answers ----------------------------------------------------------------------------------------


def test_a_chat_gives_what_the_loop_writes(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model="tiny", messages=MESSAGES, max_tokens=12, temperature=0
    )
    loop = write(["What is the phone number?"], model=tiny_model(), each=Steps(12))
    (row,) = [one.to_json() for step in loop for one in step.results]
    (choice,) = answer.choices
    assert choice.message.content == row["output"]
    assert choice.message.role == "assistant"
    assert choice.finish_reason == "length"
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 12
    assert answer.usage.prompt_tokens == len(tiny_model().tokenizer.chat(MESSAGES))
    told = ours(choice)
    assert told["stopped"]["sentence"] == "It has taken 12 steps, the limit."


def test_a_stream_is_the_same_piece_by_piece(client: openai.OpenAI) -> None:
    given: Any = {"model": "tiny", "messages": MESSAGES, "max_tokens": 20, "seed": 7}
    whole = client.chat.completions.create(**given)
    stream = client.chat.completions.create(
        **given, stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    texts = [chunk.choices[0].delta.content for chunk in chunks if chunk.choices]
    assert "".join(text for text in texts if text) == whole.choices[0].message.content
    assert len([text for text in texts if text]) > 5
    assert chunks[-1].usage == whole.usage
    last = chunks[-2].choices[0]
    assert last.finish_reason == "length"
    assert ours(last)["seed"] == 7


def test_a_completion_continues_its_prompt(client: openai.OpenAI) -> None:
    whole = client.completions.create(
        model="tiny", prompt="The reply", max_tokens=9, temperature=0, logprobs=0
    )
    loop = write(["The reply"], model=tiny_model(), each=Steps(9), chat=False)
    (row,) = [one.to_json() for step in loop for one in step.results]
    assert whole.choices[0].text == row["output"]
    told = whole.choices[0].logprobs
    assert told is not None and told.token_logprobs is not None
    assert sum(value or 0 for value in told.token_logprobs) == pytest.approx(row["logprob"])
    stream = client.completions.create(
        model="tiny", prompt="The reply", max_tokens=9, temperature=0, stream=True
    )
    assert "".join(chunk.choices[0].text for chunk in stream) == row["output"]


def best_at_first(count: int) -> list[tuple[str, float]]:
    """Return the likeliest first tokens behind `MESSAGES`, by the network alone."""
    model = tiny_model()
    tokens = model.tokenizer.chat(MESSAGES)
    with torch.inference_mode():
        hidden = model.network(torch.tensor([tokens]))[0, -1:]
        values, ids = model.llama().logits(hidden)[0].log_softmax(-1).topk(count)
    return [(model.tokenizer.shown(int(i)), float(v)) for i, v in zip(ids, values, strict=True)]


def test_a_chat_reports_the_most_likely_tokens(client: openai.OpenAI) -> None:
    given: Any = {"model": "tiny", "messages": MESSAGES, "max_tokens": 6, "seed": 5}
    given |= {"logprobs": True, "top_logprobs": 20}
    told = client.chat.completions.create(**given).choices[0].logprobs
    assert told is not None and told.content is not None and len(told.content) == 6
    first = told.content[0]
    wanted = best_at_first(20)
    assert [one.token for one in first.top_logprobs] == [text for text, _ in wanted]
    for one, (_, logprob) in zip(first.top_logprobs, wanted, strict=True):
        assert one.logprob == pytest.approx(logprob, abs=1e-4)
    for token in told.content:
        same = [one.logprob for one in token.top_logprobs if one.token == token.token]
        if same:
            assert token.logprob in same
        else:
            assert token.logprob <= token.top_logprobs[-1].logprob
    stream = client.chat.completions.create(**given, stream=True)
    chunks = [chunk.choices[0].logprobs for chunk in stream]
    assert [one for told in chunks if told for one in told.content or ()] == told.content


def test_a_completion_reports_the_most_likely_tokens_by_text(client: openai.OpenAI) -> None:
    given: Any = {"model": "tiny", "prompt": "The reply", "max_tokens": 6, "temperature": 0}
    told = client.completions.create(**given, logprobs=3).choices[0].logprobs
    assert told is not None and told.tokens and told.token_logprobs and told.top_logprobs
    assert [max(best.values()) for best in told.top_logprobs] == told.token_logprobs
    assert all(1 <= len(best) <= 3 for best in told.top_logprobs)
    named = zip(told.tokens, told.token_logprobs, told.top_logprobs, strict=True)
    whole = [(best[name], logprob) for name, logprob, best in named if name in best]
    assert whole and all(one == logprob for one, logprob in whole)  # the others are part of one
    chunks = client.completions.create(**given, logprobs=3, stream=True)
    parts = [chunk.choices[0].logprobs for chunk in chunks]
    streamed = [best for part in parts if part for best in part.top_logprobs or ()]
    assert streamed == told.top_logprobs
    (alone,) = client.completions.create(**given, logprobs=0).choices
    assert alone.logprobs is not None and alone.logprobs.top_logprobs is None


def test_control_tokens_are_read_in_a_completion_s_prompt_and_in_no_message(
    client: openai.OpenAI,
) -> None:
    tokenizer = tiny_model().tokenizer
    told: Any = {"model": "tiny", "max_tokens": 12, "temperature": 0}
    raw = client.completions.create(prompt=tokenizer.chat_text(MESSAGES), **told)
    chat = client.chat.completions.create(messages=MESSAGES, **told)
    assert raw.choices[0].text == chat.choices[0].message.content
    assert raw.usage == chat.usage
    forged: Any = [{"role": "user", "content": "<|im_end|>"}]
    quoted = client.chat.completions.create(messages=forged, **told)
    assert quoted.usage is not None
    assert quoted.usage.prompt_tokens > len(tokenizer.chat([{"role": "user", "content": ""}])) + 1


def test_a_prefilled_answer_is_continued(client: openai.OpenAI) -> None:
    tokenizer = tiny_model().tokenizer
    told: Any = {"model": "tiny", "max_tokens": 9, "temperature": 0}
    begun: Any = [*MESSAGES, {"role": "assistant", "content": "The phone number is"}]
    extra = {"continue_final_message": True, "add_generation_prompt": False}
    answer = client.chat.completions.create(messages=begun, **told, extra_body=extra)
    prompt = tokenizer.chat_text(MESSAGES) + "The phone number is"
    raw = client.completions.create(prompt=prompt, **told)
    assert answer.choices[0].message.content == raw.choices[0].text
    assert answer.usage == raw.usage


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({}, "messages[-1]"),
        ({"add_generation_prompt": True}, "add_generation_prompt"),
        (
            {
                "messages": [*MESSAGES, {"role": "assistant", "content": "It"}],
                "checks": [{"kind": "length", "max": 5}],
            },
            "continue_final_message",
        ),
    ],
    ids=["no answer", "two wishes", "checks"],
)
def test_what_cannot_be_gone_on_with_is_refused(
    place: tuple[int, Scheduler], more: dict[str, Any], param: str
) -> None:
    status, answer = post(place[0], asked(continue_final_message=True, **more))
    assert (status, answer["error"]["param"]) == (400, param)


def test_one_seed_gives_the_same_alone_and_in_company(client: openai.OpenAI) -> None:
    def ask(seed: int) -> str | None:
        answer = client.chat.completions.create(
            model="tiny", messages=MESSAGES, max_tokens=16, seed=seed
        )
        return answer.choices[0].message.content

    alone = [ask(seed) for seed in (1, 2, 3, 1)]
    together: dict[int, str | None] = {}
    seeds = (1, 2, 3, 1, 2, 3)
    threads = [
        threading.Thread(target=lambda n, seed: together.__setitem__(n, ask(seed)), args=pair)
        for pair in enumerate(seeds)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [together[n] for n in range(6)] == [*alone[:3], *alone[:3]]
    assert alone[0] == alone[3] != alone[1]


def test_choices_differ_and_have_their_index(client: openai.OpenAI) -> None:
    given: Any = {"model": "tiny", "messages": MESSAGES, "max_tokens": 10, "seed": 5, "n": 3}
    answer = client.chat.completions.create(**given)
    texts = [choice.message.content for choice in answer.choices]
    assert len(set(texts)) == 3
    streamed = ["", "", ""]
    for chunk in client.chat.completions.create(**given, stream=True):
        for choice in chunk.choices:
            streamed[choice.index] += choice.delta.content or ""
    assert streamed == texts


def test_requests_share_one_batch(
    place: tuple[int, Scheduler], monkeypatch: pytest.MonkeyPatch
) -> None:
    port, scheduler = place
    most = 0
    step = scheduler.decode.step

    def watched() -> Any:
        nonlocal most
        reports = step()
        most = max(most, len(reports))
        return reports

    monkeypatch.setattr(scheduler.decode, "step", watched)
    threads = [
        threading.Thread(target=post, args=(port, asked(max_tokens=60, seed=n))) for n in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 2 <= most <= 4


def test_a_stop_phrase_ends_the_text_before_it(client: openai.OpenAI) -> None:
    given: Any = {"model": "tiny", "messages": MESSAGES, "max_tokens": 40, "seed": 3}
    text = client.chat.completions.create(**given).choices[0].message.content or ""
    stop = text[10:14]
    whole = client.chat.completions.create(**given, stop=[stop, "never"]).choices[0]
    assert whole.message.content == text[: text.index(stop)]
    assert whole.finish_reason == "stop"
    chunks = client.chat.completions.create(**given, stop=stop, stream=True)
    streamed = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert streamed == whole.message.content
    (told,) = client.chat.completions.create(**given, stop=stop, logprobs=True).choices
    assert told.logprobs is not None and told.logprobs.content is not None
    tokens = [token.token for token in told.logprobs.content]
    assert "".join(tokens[:-1]) < (told.message.content or "") <= "".join(tokens)


def test_a_bias_on_a_token_makes_it_certain_or_impossible(client: openai.OpenAI) -> None:
    given: Any = {"model": "tiny", "messages": MESSAGES, "max_tokens": 6, "temperature": 0}
    told = client.chat.completions.create(**given, logprobs=True).choices[0].logprobs
    assert told is not None and told.content
    tokenizer = tiny_model().tokenizer
    first = bytes(told.content[0].bytes or ())
    usual = next(n for n in range(VOCAB) if tokenizer.token_bytes(n) == first)
    for shift, certain in ((100, True), (-100, False)):
        biased = client.chat.completions.create(
            **given, logprobs=True, logit_bias={str(usual): shift}
        )
        tokens = biased.choices[0].logprobs
        assert tokens is not None and tokens.content
        same = [token.bytes == told.content[0].bytes for token in tokens.content]
        assert all(same) if certain else not any(same)


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"temperature": 101}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"n": 0}, "n"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"seed": -1}, "seed"),
        ({"stop": ["", "a"]}, "stop"),
        ({"logit_bias": {"-5": 1}}, "logit_bias"),
        ({"extra_body": {"top_k": "5"}}, "top_k"),
        ({"extra_body": {"topk": 5}}, "topk"),
    ],
    ids=str,
)
@pytest.mark.parametrize("stream", [False, True])
def test_the_client_s_error_names_the_field(
    client: openai.OpenAI, more: dict[str, Any], param: str, stream: bool
) -> None:
    given: Any = {"model": "tiny", **more, "stream": stream}
    with pytest.raises(openai.BadRequestError) as chat:
        client.chat.completions.create(messages=MESSAGES, **given)
    with pytest.raises(openai.BadRequestError) as completion:
        client.completions.create(prompt="The reply", **given)
    assert chat.value.param == completion.value.param == param
    assert chat.value.type == "invalid_request_error"


@pytest.mark.parametrize("word", ["context", "context is full", "limit"])
def test_the_words_of_a_stop_phrase_are_no_reason(word: str) -> None:
    """The reason to finish is a value: a sentence may quote the phrase."""
    stopped = Stopped(StopKind.ENDED, f"It holds {word!r}.", "phrase")
    result = LaneResult(key="a", index=0, output="", accepted=True, stopped=stopped)
    request: Any = SimpleNamespace(checks=())
    assert finish_reason(request, result) == "stop"


def test_a_text_that_fills_the_context_ends_by_length(client: openai.OpenAI) -> None:
    prompt: Any = "The phone number " * 15
    answer = client.completions.create(model="tiny", prompt=prompt, seed=3, logprobs=0)
    (choice,) = answer.choices
    assert "context" in ours(choice)["stopped"]["sentence"]
    assert choice.finish_reason == "length"


def test_half_a_character_s_token_has_its_bytes(
    place: tuple[int, Scheduler], client: openai.OpenAI, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = client.chat.completions.create(
        model="tiny", messages=MESSAGES, max_tokens=30, seed=5, temperature=3, logprobs=True
    ).choices[0]
    assert told.logprobs is not None and told.logprobs.content is not None
    content = b"".join(bytes(token.bytes or ()) for token in told.logprobs.content)
    assert content.decode("utf-8", "replace") == told.message.content
    half = [token for token in told.logprobs.content if not token.token and token.bytes]
    assert half


def test_what_could_begin_a_stop_phrase_is_held_back() -> None:
    assert held_back("One tw", ["two", "x"]) == 2
    assert held_back("One two three", ["two"]) == len("two three")
    assert held_back("One", ["two"]) == 0
    assert held_back("tw", ["two" * 100_000]) == 2
    assert cut_at("One two three", ["three", "two"]) == "One "


# Checks -----------------------------------------------------------------------------------------


def checked(client: openai.OpenAI, **more: Any) -> Any:
    extra = {"checks": [{"kind": "excludes", "texts": ["e", "t"], "whole": False}], **more}
    answer = client.chat.completions.create(
        model="tiny", messages=MESSAGES, max_tokens=12, seed=4, extra_body=extra
    )
    return answer.choices[0]


@pytest.mark.parametrize("strategy", ["backtrack", {"kind": "abort", "rounds": 60}, None])
def test_a_request_s_checks_hold_while_it_is_written(client: openai.OpenAI, strategy: Any) -> None:
    choice = checked(client, **({"strategy": strategy} if strategy else {}))
    told = choice.model_extra["ostinato"]
    assert not {"e", "t"} & set(choice.message.content)
    assert told["accepted"]
    assert told["backtracks"] or told["rounds"] > 1
    assert told["tokens"]["computed"] >= told["tokens"]["reply"] - 1
    assert told["stopped"]["sentence"] == "It passed its check."
    assert choice.finish_reason == "length"


def test_an_answer_that_does_not_pass_says_so(client: openai.OpenAI) -> None:
    never = [{"kind": "contains", "texts": ["zebra crossing"]}]
    for strategy in ({"kind": "resample", "rounds": 2}, {"kind": "feedback", "rounds": 2}):
        choice = checked(client, checks=never, strategy=strategy)
        told = choice.model_extra["ostinato"]
        assert choice.finish_reason == "content_filter"
        assert told["accepted"] is False
        assert told["rounds"] == 2
        assert told["verdicts"][0]["check"] == "contains"
        assert "out of rounds" in told["stopped"]["sentence"]


def test_a_stream_with_checks_has_only_final_text(client: openai.OpenAI) -> None:
    extra = {"checks": [{"kind": "excludes", "texts": ["e"], "whole": False}]}
    stream = client.chat.completions.create(
        model="tiny", messages=MESSAGES, max_tokens=12, seed=4, stream=True, extra_body=extra
    )
    chunks = [chunk.choices[0] for chunk in stream]
    assert "e" not in "".join(choice.delta.content or "" for choice in chunks)
    assert ours(chunks[-1])["accepted"]


def test_the_one_who_serves_can_give_checks_to_all() -> None:
    check = Excludes(texts=("e",), whole=False)
    defaults = Defaults(checks=(check,), strategy=Backtrack())
    with serving(defaults=defaults, slots=2) as (port, _):
        status, answer = post(port, asked(seed=4, max_tokens=20))
        assert status == 200
        assert "e" not in answer["choices"][0]["message"]["content"]
        assert post(port, asked(seed=4, checks=[]))[1]["choices"][0]["ostinato"]["accepted"] is None


def compute(seconds: float) -> None:
    until = time.thread_time() + seconds
    while time.thread_time() < until:
        pass


@dataclass(frozen=True, kw_only=True)
class Slow(BaseCheck):
    """Passes nothing, and takes its time."""

    kind: ClassVar[str] = "slow"

    def judge(self, output: object, item: Item) -> Verdict:
        compute(0.1)
        return self.verdict(False, "Try again.")

    def check_prefix(self, output: object, item: Item) -> PrefixVerdict:
        compute(0.1)
        return super().check_prefix(output, item)


@pytest.mark.parametrize("strategy", [Resample(), Backtrack()], ids=str)
def test_checks_that_take_too_long_end_the_answer(strategy: Strategy) -> None:
    checks = tuple(Slow(name=f"slow {n}") for n in range(8))
    defaults = Defaults(checks=checks, strategy=strategy)
    with serving(slots=2, check_seconds=0.3, defaults=defaults) as (port, _):
        status, answer = post(port, asked(n=2))
        assert status == 200
        for choice in answer["choices"]:
            told = choice["ostinato"]
            assert choice["finish_reason"] == "content_filter"
            assert told["accepted"] is False
            assert told["rounds"] == 1
            sentence = told["stopped"]["sentence"]
            assert "took longer" in sentence or "exceeded their time limit" in sentence
            errors = [verdict["error"] for verdict in told["verdicts"]]
            assert len(errors) == 8
            assert errors[-1] == "The checks together exceeded their time limit."
        quick = [{"kind": "excludes", "texts": ["e"], "whole": False}]
        (choice,) = post(port, asked(checks=quick, seed=4))[1]["choices"]
        assert choice["ostinato"]["accepted"]  # the next request has time of its own


@dataclass(frozen=True, kw_only=True)
class Broken(BaseCheck):
    """Fails in the method that the request's column `fails` names; passes all other requests."""

    kind: ClassVar[str] = "broken"

    def judge(self, output: object, item: Item) -> Verdict:
        if item.get("fails") == "judge":
            raise SystemExit(3)
        return self.verdict(True, "")

    def check_prefix(self, output: object, item: Item) -> Any:
        if item.get("fails") == "prefix":
            return "impossible"
        return super().check_prefix(output, item)

    def required_text(self, output: object, item: Item) -> Any:
        return 7 if item.get("fails") == "required" else super().required_text(output, item)


@pytest.mark.parametrize("fails", ["judge", "prefix", "required"])
def test_a_broken_check_disturbs_no_other_request(fails: str) -> None:
    defaults = Defaults(checks=(Broken(name="broken"),), strategy=Backtrack())
    with serving(slots=4, defaults=defaults) as (port, _):
        good = asked(seed=4, max_tokens=20)
        alone = post(port, good)[1]["choices"]
        bodies = [good, asked(columns={"fails": fails}), good, asked(checks=[], max_tokens=2)]
        with ThreadPoolExecutor(4) as pool:
            answers = list(pool.map(lambda body: post(port, body), bodies))
        assert [status for status, _ in answers] == [200] * 4
        assert answers[0][1]["choices"] == answers[2][1]["choices"] == alone
        told = answers[1][1]["choices"][0]["ostinato"]
        assert told["accepted"] is (fails != "judge")


@pytest.mark.parametrize(
    "check",
    [
        Excludes(patterns=("e+",)),
        Regex(pattern="[a-z]*"),
        JsonSchema(schema={"pattern": "x"}),
        JsonSchema(schema={"$ref": "#/$defs/a", "$defs": {"a": {}}}),
    ],
    ids=str,
)
def test_a_check_without_time_says_that_it_could_not_judge(check: BaseCheck) -> None:
    clock = Deadline(0.0)
    with clock.running():
        assert not check.check_prefix('"a', {}).message
        try:
            assert "within 1 second" in check.judge('"a"', {}).error
        except TimeoutError as error:
            assert "together" in str(error)
    assert not check.judge('"a"', {}).error


def test_a_clock_leaves_each_judgment_what_is_left() -> None:
    assert left(7.0) == 7.0
    clock = Deadline(0.05)
    with clock.running():
        assert left(7.0) <= 0.05
        compute(0.06)
        with pytest.raises(TimeoutError, match="together"):
            left(7.0)
        verdicts = judge_all([Excludes(texts=("e",))], "three", {})
    assert clock.is_over
    assert [verdict.error for verdict in verdicts] == [
        "The checks together exceeded their time limit."
    ]
    assert not judge_all([Excludes(texts=("e",), whole=False)], "three", {})[0].error


def test_a_check_on_a_column_needs_it(place: tuple[int, Scheduler]) -> None:
    checks = [{"kind": "contains", "column": "name"}]
    status, answer = post(place[0], asked(checks=checks))
    assert status == 400
    assert "'columns' must hold 'name'" in answer["error"]["message"]
    status, answer = post(place[0], asked(checks=checks, columns={"name": "x"}, strategy="abort"))
    assert status == 200


# What is refused --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("more", "status", "param"),
    [
        ({"model": "gpt-9"}, 404, "model"),
        ({"messages": []}, 400, "messages"),
        ({"messages": [{"role": "tool", "content": "x"}]}, 400, "messages[0]"),
        ({"messages": [{"role": "user", "content": 3}]}, 400, "messages[0].content"),
        ({"max_tokens": 0}, 400, "max_tokens"),
        ({"temperature": -1}, 400, "temperature"),
        ({"temperature": "hot"}, 400, "temperature"),
        ({"temperature": 10**400}, 400, "temperature"),
        ({"min_p": float("nan")}, 400, "min_p"),
        ({"repetition_penalty": 1e300}, 400, "repetition_penalty"),
        ({"top_k": 2.5}, 400, "top_k"),
        ({"top_k": -1}, 400, "top_k"),
        ({"top_k": 1 << 40}, 400, "top_k"),
        ({"temperature": float("inf")}, 400, "temperature"),
        ({"temperature": float("nan")}, 400, "temperature"),
        ({"temperature": True}, 400, "temperature"),
        ({"temperature": "0.5"}, 400, "temperature"),
        ({"temperature": [1]}, 400, "temperature"),
        ({"temperature": 101}, 400, "temperature"),
        ({"repetition_penalty": 1e-40}, 400, "repetition_penalty"),
        ({"min_p": 1}, 400, "min_p"),
        ({"top_p": 1.5}, 400, "top_p"),
        ({"top_p": float("-inf")}, 400, "top_p"),
        ({"max_tokens": 1 << 40}, 400, "max_tokens"),
        ({"max_tokens": "5"}, 400, "max_tokens"),
        ({"max_tokens": True}, 400, "max_tokens"),
        ({"max_tokens": 5.0}, 400, "max_tokens"),
        ({"max_completion_tokens": 0}, 400, "max_completion_tokens"),
        ({"n": 0}, 400, "n"),
        ({"n": "2"}, 400, "n"),
        ({"seed": 1 << 63}, 400, "seed"),
        ({"seed": "5"}, 400, "seed"),
        ({"seed": True}, 400, "seed"),
        ({"stop": [""]}, 400, "stop"),
        ({"stop": 5}, 400, "stop"),
        ({"stop": ["a", 5]}, 400, "stop"),
        ({"stop": ["\ud83d"]}, 400, None),
        ({"logit_bias": {"-1": 100}}, 400, "logit_bias"),
        ({"logit_bias": {"5": float("nan")}}, 400, "logit_bias"),
        ({"presence_penalty": 0.5}, 400, "presence_penalty"),
        ({"model": 5}, 400, "model"),
        ({"messages": "Hello"}, 400, "messages"),
        ({"top_logprobs": "5", "logprobs": True}, 400, "top_logprobs"),
        ({"stop": "x" * 1001}, 400, "stop"),
        (
            {"logprobs": True, "top_logprobs": 2, "checks": [{"kind": "length", "max": 5}]},
            400,
            "logprobs",
        ),
        ({"messages": [{"role": "user", "content": "\ud83d"}]}, 400, "messages[0].content"),
        ({"top_p": 0}, 400, "top_p"),
        ({"n": 99}, 400, "n"),
        ({"seed": -1}, 400, "seed"),
        ({"stop": ["a"] * 5}, 400, "stop"),
        ({"stream": "yes"}, 400, "stream"),
        ({"top_logprobs": 3}, 400, "top_logprobs"),
        ({"top_logprobs": 21, "logprobs": True}, 400, "top_logprobs"),
        ({"logprobs": 3}, 400, "logprobs"),
        ({"tools": [{"type": "function"}]}, 400, "tools"),
        ({"tool_choice": "required"}, 400, "tool_choice"),
        ({"modalities": ["text", "audio"]}, 400, "modalities"),
        ({"logit_bias": {"5": 101}}, 400, "logit_bias"),
        ({"logit_bias": {"999999": 1}}, 400, "logit_bias"),
        ({"logit_bias": {"9" * 30: 1}}, 400, "logit_bias"),
        ({"logit_bias": {"5": "10"}}, 400, "logit_bias"),
        ({"logit_bias": {"5": True}}, 400, "logit_bias"),
        ({"logit_bias": {"the": 1}}, 400, "logit_bias"),
        ({"logit_bias": {"": 1}}, 400, "logit_bias"),
        ({"logit_bias": [5]}, 400, "logit_bias"),
        ({"logit_bias": {str(n): 1 for n in range(1025)}}, 400, "logit_bias"),
        ({"stream_options": "x"}, 400, "stream_options"),
        ({"stream_options": {"include_usage": "x"}}, 400, "stream_options.include_usage"),
        (
            {"messages": [{"role": "user", "content": [{"type": "text", "text": 5}]}]},
            400,
            "messages[0].content[0].text",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
            400,
            "messages[0].content[0]",
        ),
        ({"checks": [{"kind": "lenght"}]}, 400, "checks[0]"),
        ({"checks": [{"kind": "python", "call": "os:getcwd"}]}, 400, "checks[0]"),
        ({"checks": [{"kind": "blocked", "file": "/etc/passwd"}]}, 400, "checks[0]"),
        ({"checks": [{"kind": "on_topic", "model": "/etc"}]}, 400, "checks[0]"),
        ({"checks": [{"kind": "judge", "question": "Good? {output}"}]}, 400, "checks[0]"),
        (
            {"checks": [{"kind": "json_schema", "schema": {"$ref": "http://127.0.0.1:1/x"}}]},
            400,
            "checks[0]",
        ),
        ({"checks": [{"kind": "json_schema", "schema": {"enum": DEEP}}]}, 400, "checks[0]"),
        ({"checks": [{"kind": "regex", "pattern": "("}]}, 400, "checks[0]"),
        ({"strategy": "luck"}, 400, "strategy"),
        ({"strategy": {"kind": "abort", "rounds": 0}}, 400, "strategy"),
        ({"strategy": {"kind": "abort", "laps": 3}}, 400, "strategy.laps"),
        ({"messages": [{"role": "user", "content": "word " * 999}]}, 400, "messages"),
    ],
    ids=str,
)
def test_errors_have_the_shape_of_the_api(
    place: tuple[int, Scheduler], more: dict[str, Any], status: int, param: str
) -> None:
    got, answer = post(place[0], asked(**more))
    assert (got, answer["error"]["param"]) == (status, param)
    assert answer["error"]["type"] == "invalid_request_error"
    assert answer["error"]["message"]


@pytest.mark.parametrize("name", ["temperature", "top_k", "seed", "stop", "model", "y" * 100_000])
def test_a_refusal_repeats_little_of_a_long_value(place: tuple[int, Scheduler], name: str) -> None:
    status, answer = post(place[0], asked(**{name: ["x" * 100_000]}))
    assert status == 400 and len(answer["error"]["message"]) < 500


@pytest.mark.parametrize(
    "more",
    [
        {"response_format": {"type": "text"}},
        {"tools": []},
        {"tools": [], "tool_choice": "auto"},
        {"tool_choice": "none", "parallel_tool_calls": True},
        {"logit_bias": {}},
        {"modalities": ["text"]},
        {"prompt_cache_key": "a", "user": "b", "metadata": {"c": "d"}},
        {"stop": [], "functions": [], "suffix": ""},
        {"stream_options": None},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "Hello"}] * 2}]},
    ],
    ids=str,
)
def test_what_asks_for_nothing_is_passed_over(
    place: tuple[int, Scheduler], more: dict[str, Any]
) -> None:
    told = {"messages": [{"role": "user", "content": "HelloHello"}]} if "messages" in more else {}
    plain, asked_for = asked(seed=3, **told), asked(seed=3) | more
    answers = [post(place[0], value) for value in (plain, asked_for)]
    assert [status for status, _ in answers] == [200, 200]
    assert answers[0][1]["choices"] == answers[1][1]["choices"]


def test_a_completion_s_best_of_must_be_its_n(place: tuple[int, Scheduler]) -> None:
    asks = {"model": "tiny", "prompt": "The reply", "max_tokens": 3, "n": 2}
    assert post(place[0], asks | {"best_of": 2}, "/v1/completions")[0] == 200
    status, answer = post(place[0], asks | {"best_of": 5}, "/v1/completions")
    assert (status, answer["error"]["param"]) == (400, "best_of")
    assert "must be n, which is 2, got 5" in answer["error"]["message"]


def test_a_body_that_is_no_request_is_an_error(place: tuple[int, Scheduler]) -> None:
    port = place[0]
    assert post(port, b"{")[0] == 400
    assert post(port, [1])[0] == 400
    assert post(port, b"[" * 100_000)[0] == 400
    assert post(port, asked(), Content_Type="text/plain")[0] == 415
    assert post(port, asked(), Content_Type="application/json; charset=latin-1")[0] == 415
    assert post(port, asked(), Content_Type="")[0] == 415
    assert "UTF-8" in post(port, b'{"model": "\xe9"}')[1]["error"]["message"]
    assert post(port, json.dumps(asked()).encode("utf-16"))[0] == 400
    assert post(port, b"9" * 5000)[0] == 400
    assert post(port, asked(user="x" * (1 << 20)))[0] == 413
    assert post(port, asked(), "/v1/embeddings")[0] == 404
    assert post(port, asked(), "/v1/models")[0] == 405
    status, answer = post(port, asked(), Host="evil.example")
    assert status == 400
    assert "host" in str(answer).lower()


def test_errors_are_those_of_the_client(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="does not exist here"):
        client.chat.completions.create(model="gpt-9", messages=MESSAGES)
    with pytest.raises(openai.BadRequestError, match="'stop' must be"):
        client.chat.completions.create(model="tiny", messages=MESSAGES, stop=["a"] * 5)
    assert [model.id for model in client.models.list()] == ["tiny"]
    assert client.models.retrieve("tiny").owned_by == "ostinato"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("gpt-9")


@pytest.mark.parametrize("depth", [100, 800, 900, *range(930, 996, 5), 2000, 100_000])
@pytest.mark.parametrize("field", ["metadata", "stop", "checks", "response_format", "odd"])
def test_a_deep_body_is_an_answer_or_a_refusal_and_no_failure(
    place: tuple[int, Scheduler], field: str, depth: int
) -> None:
    body = json.dumps(asked(**{field: "deep"}) | {"max_tokens": 1})
    status, answer = post(place[0], body.replace('"deep"', "[" * depth + "]" * depth).encode())
    assert status in (200, 400)
    if status == 400:
        assert answer["error"]["type"] == "invalid_request_error"
    else:
        assert field == "metadata"  # which changes nothing


@pytest.mark.parametrize(
    "given",
    [
        "application/json",
        "Application/JSON",
        "application/json;charset=UTF-8",
        'application/json; charset="utf-8"',
        "application/json; charset=us-ascii",
    ],
)
def test_a_media_type_has_no_case_and_may_name_utf_8(
    place: tuple[int, Scheduler], given: str
) -> None:
    assert post(place[0], asked(), Content_Type=given)[0] == 200


def test_a_body_may_begin_with_a_byte_order_mark(place: tuple[int, Scheduler]) -> None:
    assert post(place[0], b"\xef\xbb\xbf" + json.dumps(asked()).encode())[0] == 200


@pytest.mark.parametrize("body", [json.dumps(asked(max_tokens=200)), '{"model": "tiny", '])
def test_a_client_that_closes_its_half_gets_an_end_and_frees_its_slot(
    place: tuple[int, Scheduler], body: str
) -> None:
    port, scheduler = place
    length = 10_000 if body.endswith(" ") else len(body)  # one whose body never ends
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {length}\r\n"
        "Content-Type: application/json\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall((head + body).encode())
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(1 << 16):
            pass
    deadline = time.monotonic() + 10
    while scheduler._queue.active and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not scheduler._queue.active
    assert post(port, asked())[0] == 200


def test_a_key_is_required() -> None:
    with serving(key="sk-1", slots=2) as (port, _):
        assert post(port, asked())[0] == 401
        status, answer = post(port, asked(), Authorization="Bearer sk-2")
        assert (status, answer["error"]["code"]) == (401, "invalid_api_key")
        for given in ("Bearer sk-1", "bearer sk-1", "BEARER  sk-1 "):
            assert post(port, asked(), Authorization=given)[0] == 200
        for given in ("Basic sk-1", "Bearer", "Bearer sk-1 sk-2", "sk-1", "Bearer sk-é"):
            assert post(port, asked(), Authorization=given)[0] == 401


def test_too_many_requests_get_status_429() -> None:
    with serving(slots=1, max_waiting=2) as (port, _):
        status, answer = post(port, asked(n=3))
        assert (status, answer["error"]["code"]) == (429, "too_many_requests")
        assert post(port, asked(n=2))[0] == 200


# Ends -------------------------------------------------------------------------------------------


def test_a_client_that_disconnects_frees_its_slot(place: tuple[int, Scheduler]) -> None:
    port, scheduler = place
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    body = json.dumps(asked(max_tokens=200, stream=True, temperature=2.0))
    connection.request("POST", "/v1/chat/completions", body, {"Content-Type": "application/json"})
    response = connection.getresponse()
    response.read(20)
    response.close()
    connection.close()
    deadline = time.monotonic() + 10
    while scheduler._queue.active and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not scheduler._queue.active


def told_of(port: int, name: str) -> int:
    """Return how many tokens the server says that it has computed, or sent."""
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=20)) as connection:
        connection.request("GET", "/health")
        return int(json.loads(connection.getresponse().read())[name])


@pytest.mark.parametrize("more", [{}, {"stop": ["e"]}, {"n": 2}], ids=str)
def test_what_was_sent_is_counted_the_same_whole_and_in_a_stream(
    place: tuple[int, Scheduler], client: openai.OpenAI, more: dict[str, Any]
) -> None:
    given: Any = {"model": "tiny", "messages": MESSAGES, "max_tokens": 20, "seed": 4, **more}
    before = told_of(place[0], "sent")
    usage = client.chat.completions.create(**given).usage
    between = told_of(place[0], "sent")
    assert usage is not None
    assert between - before == usage.completion_tokens > 0
    list(client.chat.completions.create(**given, stream=True))
    assert told_of(place[0], "sent") - between == usage.completion_tokens


def test_abort_stops_computing_at_the_first_impossible_token(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with serving(slots=2) as (port, scheduler):
        step = scheduler.decode.step

        def slowly() -> Any:
            time.sleep(0.02)
            return step()

        monkeypatch.setattr(scheduler.decode, "step", slowly)
        refine = Refine(
            Server(url=f"http://127.0.0.1:{port}/v1", model="tiny", api="completions"),
            [{"message": "The reply"}],
            prompt="{message}",
            checks=[Length(max=8, unit="characters")],
            strategy=Abort(rounds=1),
            max_new_tokens=200,
        )
        (row,) = lane_rows(refine)
        stopped: Any = row["stopped"]
        assert "failed" in (stopped["kind"], stopped["numbers"].get("after"))
        deadline = time.monotonic() + 10
        while scheduler._queue.active and time.monotonic() < deadline:
            time.sleep(0.01)
        computed = told_of(port, "computed")
        time.sleep(0.3)
        assert told_of(port, "computed") == computed < 100
        assert 0 < told_of(port, "sent") <= computed + 1  # the first needs no more than its prompt
        refine.decode.close()  # type: ignore[union-attr]


def hold_until_closed(scheduler: Scheduler, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hold the scheduler until it is closed, so that requests are still active then."""
    step = scheduler.decode.step

    def held() -> Any:
        while not scheduler._queue.closing:
            time.sleep(0.001)
        return step()

    monkeypatch.setattr(scheduler.decode, "step", held)


def test_closing_finishes_active_requests_and_takes_no_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with serving(slots=2) as (port, scheduler):
        hold_until_closed(scheduler, monkeypatch)
        answers: list[tuple[int, Any]] = []
        asker = threading.Thread(
            target=lambda: answers.append(post(port, asked(max_tokens=60, seed=1)))
        )
        asker.start()
        while not scheduler._queue.active:
            time.sleep(0.001)
        scheduler.close()
        asker.join()
        assert answers[0][0] == 200
        assert post(port, asked())[0] == 503


def test_closing_at_once_cancels_active_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(slots=2) as (port, scheduler):
        hold_until_closed(scheduler, monkeypatch)
        answers: list[tuple[int, Any]] = []
        asker = threading.Thread(
            target=lambda: answers.append(post(port, asked(max_tokens=200, seed=1)))
        )
        asker.start()
        while not scheduler._queue.active:
            time.sleep(0.001)
        scheduler.close(at_once=True)
        asker.join()
    (choice,) = answers[0][1]["choices"]
    assert choice["ostinato"]["stopped"]["kind"] == "stopped by a person"


def test_closing_at_once_ends_waiting_requests_with_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with serving(slots=1) as (port, scheduler):
        answers: list[tuple[int, Any]] = []
        hold_until_closed(scheduler, monkeypatch)
        askers = [
            threading.Thread(target=lambda: answers.append(post(port, asked(max_tokens=200))))
            for _ in range(4)
        ]
        for asker in askers:
            asker.start()
        while (
            not scheduler._queue.active
            or len(scheduler._queue.active) + len(scheduler._queue.waiting) < 4
        ):
            time.sleep(0.001)
        waiting = len(scheduler._queue.waiting)  # the batch knows its next one already
        scheduler.close(at_once=True)
        for asker in askers:
            asker.join(20)
    assert waiting in (2, 3)
    told = sorted(status for status, _ in answers)
    assert told == [200] * (4 - waiting) + [503] * waiting


def test_a_failed_batch_is_an_error_and_the_next_one_works(
    place: tuple[int, Scheduler], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    port, scheduler = place

    def broken() -> Any:
        raise RuntimeError("a wire is loose")

    monkeypatch.setattr(scheduler.decode, "step", broken)
    status, answer = post(port, asked())
    assert (status, answer["error"]["type"]) == (500, "server_error")
    assert "loose" not in answer["error"]["message"]
    assert "a wire is loose" in caplog.text
    assert post(port, asked())[0] == 200


def test_the_reported_seed_gives_the_same_answer(client: openai.OpenAI) -> None:
    first = client.chat.completions.create(model="tiny", messages=MESSAGES, max_tokens=10)
    seed = ours(first.choices[0])["seed"]
    again = client.chat.completions.create(
        model="tiny", messages=MESSAGES, max_tokens=10, seed=seed
    )
    assert again.choices[0].message.content == first.choices[0].message.content


def test_our_own_client_can_ask_it(place: tuple[int, Scheduler]) -> None:
    url = f"http://127.0.0.1:{place[0]}/v1#tiny"
    loop: Loop = write(["The reply"], model=url, each=Steps(9) | Phrase("never"))
    (row,) = [one.to_json() for step in loop for one in step.results]
    loop.process.process.close()  # type: ignore[attr-defined]
    here = write(["The reply"], model=tiny_model(), each=Steps(9), sampling=SamplingParams())
    (own,) = [one.to_json() for step in here for one in step.results]
    assert row["output"] == own["output"]
    assert row["length"] == 9


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("times", [1, 2])
def test_ctrl_c_ends_it_after_the_answers_in_work_or_at_once(tmp_path: Path, times: int) -> None:
    save_tiny(tmp_path / "model")
    code = "from ostinato.cli.main import main; main()"
    words = ["serve", str(tmp_path / "model"), "--name", "tiny", "--port", "0"]
    command = [sys.executable, "-c", code, *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as child:
        assert child.stdout is not None
        said = child.stdout.readline().decode()
        port = int(re.findall(r":(\d+)/v1", said)[0])
        body = json.dumps(asked(max_tokens=200, seed=1, stream=True))
        to = http.client.HTTPConnection("127.0.0.1", port, timeout=100)
        with closing(to) as connection:
            headers = {"Content-Type": "application/json"}
            connection.request("POST", "/v1/chat/completions", body, headers)
            response = connection.getresponse()
            response.read(400)  # the answer is in work
            child.send_signal(signal.SIGINT)
            assert b"running requests are done" in child.stdout.readline()
            if times == 2:
                child.send_signal(signal.SIGINT)
            rest = response.read().decode() if times == 1 else ""
            assert child.wait(100) == 0
        assert times == 2 or "data: [DONE]" in rest


def test_serve_needs_a_key_for_others(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from click.testing import CliRunner

    from ostinato.cli.serve import serve

    monkeypatch.setenv("LATIN_KEY", "caf\udce9")
    for words, message in (
        (["--host", "0.0.0.0"], "must require a key"),
        (["--key-env", "LATIN_KEY"], "LATIN_KEY must hold the server's key in one line of ASCII"),
        (["--key-env", "NO_SUCH_KEY"], "NO_SUCH_KEY must hold"),
    ):
        result = CliRunner().invoke(serve, words)
        assert message in str(result.exception)
