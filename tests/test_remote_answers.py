"""Answers as real servers send them: the text comes through, and what is no answer is a fault."""

from __future__ import annotations

import json
import re
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest
from faulty_server import Faults, Raw, raw, serving, whole

from ostinato.loop import Lane
from ostinato.remote import (
    CompletionRequest,
    PermanentError,
    RetryableError,
    Server,
    ServerError,
    ServerLanes,
    complete,
    retry,
)
from ostinato.remote import client as client_module
from ostinato.remote.api_error import read_error

QUESTION = CompletionRequest(prompt="Is it?", max_tokens=20)


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "BASE", 0.001)
    monkeypatch.setattr(client_module, "GRACE", 0.2)


def of(content: object, finish: object = None, **more: Any) -> dict[str, Any]:
    """Return an event of a chat's stream."""
    delta = {} if content is None else {"content": content}
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": finish}], **more}


def thought(name: str, text: str) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": {name: text, "content": None}}]}


def message(content: object, finish: object = "stop", **more: Any) -> dict[str, Any]:
    """Return a whole answer of a chat."""
    held = {"role": "assistant", "content": content, **more}
    return {"choices": [{"index": 0, "message": held, "finish_reason": finish}]}


def text(content: object, finish: object = None) -> dict[str, Any]:
    """Return an event of a completion's stream, or a whole completion."""
    return {"choices": [{"index": 0, "text": content, "finish_reason": finish}]}


USAGE = {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12}
FILTERED = {"hate": {"filtered": False, "severity": "safe"}}
CALLS = [{"index": 0, "function": {"name": "get_weather", "arguments": "{}"}}]
SMILE = "\U0001f600"
IN_UTF8 = f"data: {json.dumps(of(f'Hi {SMILE}.', 'stop'), ensure_ascii=False)}\n\n".encode()

STREAMS: dict[str, tuple[Raw, str]] = {
    "one reason to finish": (raw(of("Hi"), of(" you."), of(None, "stop")), "Hi you."),
    "the reason with the last text": (raw(of("Hi"), of(" you.", "stop")), "Hi you."),
    "the reason in every event": (
        raw(of("Hi", "stop"), of(" there", "stop"), of(" you.", "stop")),
        "Hi there you.",
    ),
    "the reason twice": (raw(of("Hi."), of(None, "stop"), of("", "stop", usage=USAGE)), "Hi."),
    "no reason, and [DONE]": (raw(of("Hi"), of(".")), "Hi."),
    "an empty reason (Ollama)": (raw(of("Hi", ""), of(".", ""), of("", "stop")), "Hi."),
    "no [DONE]": (raw(of("Hi."), of(None, "stop"), done=False), "Hi."),
    "no [DONE], and the connection stays open": (
        Raw(raw(of("Hi."), of(None, "stop"), done=False).parts, hang=2.0),
        "Hi.",
    ),
    "a cut [DONE]": (
        Raw((*raw(of("Hi.", "stop"), done=False).parts, b"data: [DO")),
        "Hi.",
    ),
    "a role first (OpenAI)": (
        raw(
            {"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]},
            of("Hi."),
            of(None, "stop", usage=None),
            {"choices": [], "usage": USAGE},
        ),
        "Hi.",
    ),
    "the prompt's filter first (Azure)": (
        raw(
            {"id": "", "choices": [], "prompt_filter_results": [{"content_filter_results": {}}]},
            of("Hi."),
            of(None, "stop"),
            {"choices": [{"index": 0, "finish_reason": None, "content_filter_results": FILTERED}]},
        ),
        "Hi.",
    ),
    "choices that are null": (
        raw(of("Hi."), of(None, "stop"), {"choices": None, "usage": USAGE}),
        "Hi.",
    ),
    "usage of its own (Groq)": (
        raw(of("Hi."), of(None, "stop", x_groq={"id": "x", "usage": USAGE})),
        "Hi.",
    ),
    "comments (OpenRouter)": (
        raw(": OPENROUTER PROCESSING", ":", of("Hi."), ": OPENROUTER PROCESSING", of("", "stop")),
        "Hi.",
    ),
    "an empty event": (raw("data:", "data: ", of("Hi."), of(None, "stop")), "Hi."),
    "a sign of life": (raw('event: ping\ndata: {"type": "ping"}', of("Hi.", "stop")), "Hi."),
    "data without a blank": (raw(f"data:{json.dumps(of('Hi.', 'stop'))}"), "Hi."),
    "data of many lines": (
        raw(
            "\n".join(
                f"data: {line}" for line in json.dumps(of("Hi.", "stop"), indent=1).split("\n")
            )
        ),
        "Hi.",
    ),
    "CRLF and a byte-order mark": (
        Raw(
            (
                b"\xef\xbb\xbf",
                raw(of("Hi"), of(".", "stop")).parts[0].replace(b"\n", b"\r\n"),
                raw(of("."), of("", "stop")).parts[0].replace(b"\n", b"\r\n"),
                b"data: [DONE]\r\n\r\n",
            )
        ),
        "Hi.",
    ),
    "packets of a byte": (
        Raw(tuple(IN_UTF8[n : n + 1] for n in range(len(IN_UTF8)))),
        f"Hi {SMILE}.",
    ),
    "half characters": (raw(of("Hi \ud83d"), of("\ude00."), of("", "stop")), f"Hi {SMILE}."),
    "half a character alone": (raw(of("Hi \ud83d"), of(".", "stop")), "Hi \ufffd."),
    "half a character at the end": (raw(of("Hi \ud83d"), of(None, "stop")), "Hi \ufffd"),
    "reasoning beside it (DeepSeek)": (
        raw(thought("reasoning_content", "Let me"), of("Hi."), of(None, "stop")),
        "Hi.",
    ),
    "reasoning beside it (OpenRouter)": (
        raw(thought("reasoning", "Let me"), of("Hi."), of(None, "stop")),
        "Hi.",
    ),
    "parts with reasoning (Mistral)": (
        raw(
            of([{"type": "thinking", "thinking": [{"type": "text", "text": "Let me"}]}]),
            of([{"type": "text", "text": "Hi"}]),
            of(".", "stop"),
        ),
        "Hi.",
    ),
    "no tool calls (LM Studio)": (
        raw(
            {"choices": [{"delta": {"content": "Hi.", "tool_calls": []}, "finish_reason": "stop"}]}
        ),
        "Hi.",
    ),
    "a null log-probability": (
        raw(
            {
                "choices": [
                    {
                        "delta": {"content": "Hi."},
                        "logprobs": {
                            "content": [
                                {
                                    "token": "Hi.",
                                    "logprob": None,
                                    "top_logprobs": [{"token": "Hi", "logprob": None}],
                                }
                            ]
                        },
                    }
                ]
            },
            of("", "stop"),
        ),
        "Hi.",
    ),
    "log-probabilities of another shape": (
        raw(
            {"choices": [{"delta": {"content": "Hi."}, "logprobs": {"content": [1]}}]},
            of("", "stop"),
        ),
        "Hi.",
    ),
    "the whole text beside the pieces (Perplexity)": (
        raw(
            of("Hi"),
            {
                "choices": [
                    {
                        "delta": {"content": "."},
                        "message": {"content": "Hi."},
                        "finish_reason": "stop",
                    }
                ]
            },
            {"choices": [{"delta": {}, "message": {"content": "Hi."}, "finish_reason": "stop"}]},
        ),
        "Hi.",
    ),
    "a whole answer to a request for a stream": (whole(message("Hi.")), "Hi."),
    "a media type in capitals": (
        Raw(raw(of("Hi.", "stop")).parts, "Text/Event-Stream;charset=UTF-8"),
        "Hi.",
    ),
    "no media type of a stream": (Raw(raw(of("Hi.", "stop")).parts, "text/plain"), "Hi."),
    "the end of text by another name (TGI)": (raw(of("Hi."), of("", "eos_token")), "Hi."),
    "a stop as an object (SGLang)": (raw(of("Hi."), of("", {"type": "stop", "matched": 2})), "Hi."),
}

WHOLE: dict[str, tuple[Raw, str]] = {
    "a message": (whole(message("Hi.")), "Hi."),
    "a list of parts": (
        whole(message([{"type": "text", "text": "Hi"}, {"type": "text", "text": "."}])),
        "Hi.",
    ),
    "reasoning and parts": (
        whole(
            message([{"type": "thinking", "thinking": "Let me"}, {"type": "text", "text": "Hi."}])
        ),
        "Hi.",
    ),
    "reasoning beside it": (whole(message("Hi.", reasoning_content="Let me")), "Hi."),
    "no reason to finish": (whole(message("Hi.", None)), "Hi."),
    "a detail beside it": (whole(message("Hi.") | {"detail": "cached", "errors": ["none"]}), "Hi."),
    "an error of code 0": (whole(message("Hi.") | {"error": {"code": 0, "message": ""}}), "Hi."),
    "a byte-order mark": (
        Raw((b"\xef\xbb\xbf" + json.dumps(message("Hi.")).encode(),), "application/json"),
        "Hi.",
    ),
    "half a character": (whole(message("Hi \ud83d.")), "Hi \ufffd."),
    "a stream nobody asked for": (raw(of("Hi"), of(".", "stop")), "Hi."),
    "a success of MiniMax": (
        whole({**message("Hi."), "base_resp": {"status_code": 0, "status_msg": ""}}),
        "Hi.",
    ),
    "no tool calls": (whole(message("Hi.", "stop", tool_calls=[], refusal=None)), "Hi."),
    "empty": (whole(message("")), ""),
}

COMPLETIONS: dict[str, tuple[Raw, str]] = {
    "a stream": (raw(text("Hi"), text("."), text("", "stop")), "Hi."),
    "a stream with a reason in every event": (raw(text("Hi", "stop"), text(".", "stop")), "Hi."),
    "a stream without a reason": (raw(text("Hi"), text(".")), "Hi."),
    "a whole text": (whole(text("Hi.", "stop")), "Hi."),
    "a null log-probability": (
        whole(
            {
                "choices": [
                    {
                        "text": "Hi.",
                        "finish_reason": "stop",
                        "logprobs": {
                            "token_logprobs": [None, -0.5],
                            "top_logprobs": [None, {"a": 1}],
                        },
                    }
                ]
            }
        ),
        "Hi.",
    ),
}


@contextmanager
def server_for(faults: Faults, **settings: Any) -> Iterator[Server]:
    with serving(faults) as url:
        yield Server(url=url, model="m", **{"retries": 1, "timeout": 2.0, **settings})


def report_of(server: Server, **settings: Any) -> tuple[str, Mapping[str, Any]]:
    """Return what one lane writes, and its last report."""
    process = ServerLanes(server, lambda item, edits: str(item), **settings)
    try:
        process.start(Lane("a"), "Write.")
        last: Mapping[str, Any] = {}
        while not any(name in last for name in ("ended", "out_of_room", "failed", "error")):
            for report in process.step().values():
                last = report
        written = str(process.output("a"))
        process.drop("a")
        return written, last
    finally:
        process.close()


def rows(api: str, table: Mapping[str, tuple[Raw, str]]) -> list[Any]:
    return [pytest.param(*row, api, id=f"{api}: {name}") for name, row in table.items()]


@pytest.mark.parametrize(
    ("answer", "wanted", "api"),
    [*rows("chat", STREAMS), *rows("chat", WHOLE), *rows("completions", COMPLETIONS)],
)
def test_the_text_of_an_answer_comes_through(answer: Raw, wanted: str, api: str) -> None:
    """In a stream, as a whole answer, and in a blocking call: every server mixes them up."""
    for stream in (True, False):
        faults = Faults(script=deque([answer]))
        with server_for(faults, api=api, stream=stream) as server:
            written, last = report_of(server)
            assert (written, last.get("ended")) == (wanted, "The server ended the text.")
            assert len(faults.bodies) == 1
    if not answer.hang:
        with server_for(Faults(script=deque([answer])), api=api) as server:
            assert complete(server, QUESTION, seconds=5).text == wanted


# What is no answer ------------------------------------------------------------------------------

FAULTS: dict[str, tuple[Raw, type[Exception], str]] = {
    "too many requests (MiniMax)": (
        whole({"choices": None, "base_resp": {"status_code": 1002, "status_msg": "rate limit"}}),
        RetryableError,
        "It answered 429: rate limit",
    ),
    "no money (MiniMax)": (
        whole({"choices": None, "base_resp": {"status_code": 1008, "status_msg": "no balance"}}),
        ServerError,
        "It answered 402: no balance",
    ),
    "an unknown code (MiniMax)": (
        raw({"choices": None, "base_resp": {"status_code": 1000, "status_msg": "unknown"}}),
        RetryableError,
        "It answered with an error: unknown",
    ),
    "null": (whole(None), RetryableError, "no answer: 'null'"),
    "no choices": (whole({"id": "x", "object": "chat.completion"}), RetryableError, "no answer"),
    "empty choices": (whole({"choices": []}), RetryableError, "no answer: '{\"choices\": []}'"),
    "null choices": (whole({"choices": None}), RetryableError, "no answer"),
    "choices that are an object": (whole({"choices": {"0": {}}}), RetryableError, "no answer"),
    "a choice that is null": (whole({"choices": [None]}), RetryableError, "no answer"),
    "a choice without a message": (
        whole({"choices": [{"finish_reason": "stop"}]}),
        RetryableError,
        "no answer",
    ),
    "content that is a number": (whole(message(5)), RetryableError, "no answer"),
    "a page": (Raw((b"<html>Log in.</html>",), "text/html"), RetryableError, "no answer: '<html>"),
    "nothing": (Raw((b"",), "application/json"), RetryableError, "no answer: ''"),
    "deep": (Raw((b"[" * 100_000,), "application/json"), RetryableError, "no answer: '[[["),
    "another service (Ollama's own API)": (
        whole({"model": "m", "message": {"role": "assistant", "content": "Hi."}, "done": True}),
        RetryableError,
        "no answer",
    ),
    "an error in a stream (OpenRouter)": (
        raw(
            of("Hi"),
            {
                "error": {"code": 502, "message": "Provider disconnected"},
                "choices": [{"delta": {"content": ""}, "finish_reason": "error"}],
            },
        ),
        RetryableError,
        "It answered 502: Provider disconnected",
    ),
    "an error in a choice (OpenRouter)": (
        whole({"choices": [{"error": {"code": 429, "message": "Slow down"}}]}),
        RetryableError,
        "It answered 429: Slow down",
    ),
    "an error that is a text (LM Studio, TGI)": (
        raw('event: error\ndata: {"error": "Model unloaded."}'),
        RetryableError,
        "It answered with an error: Model unloaded.",
    ),
    "an error in a field of its own (llama.cpp)": (
        raw('error: {"code": 500, "message": "out of slots", "type": "server_error"}'),
        RetryableError,
        "It answered 500: out of slots",
    ),
    "an error that is the whole body (vLLM)": (
        raw({"object": "error", "message": "too long", "type": "BadRequestError", "code": 400}),
        PermanentError,
        "It answered 400: too long",
    ),
    "an error in a list (Gemini)": (
        whole([{"error": {"code": 401, "message": "No key", "status": "UNAUTHENTICATED"}}]),
        ServerError,
        "It answered 401: No key",
    ),
    "an error without an event": (
        Raw((b'{"error": {"message": "Gateway timeout"}}\n',)),
        RetryableError,
        "It answered with an error: Gateway timeout",
    ),
    "no quota, told with 200": (
        whole({"error": {"message": "Pay first.", "code": "insufficient_quota"}}),
        ServerError,
        "Pay first.",
    ),
    "a lone reason of an error": (raw(of("Hi"), of(None, "error")), RetryableError, "'error'"),
    "an abort (vLLM)": (raw(of("Hi"), of(None, "abort")), RetryableError, "'abort'"),
    "no resources (DeepSeek)": (
        whole(message("Hi", "insufficient_system_resource")),
        RetryableError,
        "'insufficient_system_resource'",
    ),
    "no gzip": (
        Raw((b"plain",), encoding="gzip"),
        RetryableError,
        "It sent ",  # "what cannot be decompressed"; the blocking call does not ask for gzip
    ),
    "a stream that is cut": (raw(of("Hi"), done=False), RetryableError, "before it was finished"),
    "a stream without a text": (raw(of("")), RetryableError, "before it was finished"),
    "a stream of nothing": (raw(), RetryableError, "without a word"),
    "broken JSON": (raw('data: {"choices": ['), RetryableError, "no answer: '{\"choices\": ['"),
    "half a character in an error": (
        whole({"error": {"message": "half \ud83d"}}),
        RetryableError,
        "half \ufffd",
    ),
}


@pytest.mark.parametrize(("answer", "kind", "said"), FAULTS.values(), ids=FAULTS.keys())
def test_what_is_no_answer_is_a_fault_that_says_what_came(
    answer: Raw, kind: type[Exception], said: str
) -> None:
    with (
        server_for(Faults(script=deque([answer]))) as server,
        pytest.raises(kind, match=re.escape(said)) as caught,
    ):
        complete(server, QUESTION, seconds=5, attempts=1)
    assert type(caught.value) is kind
    for stream in (True, False):
        faults = Faults(script=deque([answer]))
        with server_for(faults, stream=stream, retries=0) as server:
            if kind is PermanentError:
                assert said in report_of(server)[1]["error"]
            else:
                with pytest.raises(ServerError, match=re.escape(said)):
                    report_of(server)


@pytest.mark.parametrize(
    "answer",
    [row for row, kind, _ in FAULTS.values() if kind is RetryableError],
    ids=[name for name, row in FAULTS.items() if row[1] is RetryableError],
)
def test_a_passing_fault_is_retried(answer: Raw) -> None:
    faults = Faults(script=deque([answer]), writes=lambda body: "Hi you.")
    with server_for(faults) as server:
        assert report_of(server)[0] == "Hi you."
    assert len(faults.bodies) == 2


ENDS: dict[str, tuple[Raw, str, str]] = {
    "a tool (OpenAI)": (
        whole(message(None, "tool_calls", tool_calls=CALLS)),
        "",
        "called a tool (get_weather)",
    ),
    "a tool in a stream": (
        raw(
            of("Let me see."),
            {"choices": [{"delta": {"tool_calls": CALLS}}]},
            {"choices": [{"delta": {"tool_calls": [{"function": {"arguments": "{"}}]}}]},
            of(None, "tool_calls"),
        ),
        "Let me see.",
        "called a tool (get_weather)",
    ),
    "a function": (
        whole(message(None, "function_call", function_call={"name": "f", "arguments": "{}"})),
        "",
        "called a tool (f)",
    ),
    "a refusal": (
        whole(message(None, "stop", refusal="I cannot help.")),
        "",
        "refused: I cannot help.",
    ),
    "a refusal in a stream": (
        raw(
            {"choices": [{"delta": {"refusal": "I "}}]},
            {"choices": [{"delta": {"refusal": "cannot."}}]},
            of(None, "stop"),
        ),
        "",
        "refused: I cannot.",
    ),
    "a refusal as a part": (
        whole(message([{"type": "refusal", "refusal": "No."}])),
        "",
        "refused: No.",
    ),
    "a filter (Azure)": (
        raw(of("Hi"), of(None, "content_filter")),
        "Hi",
        "content filter cut it off",
    ),
    "a filter (Gemini)": (
        raw(of("Hi"), of(None, "content_filter: PROHIBITED_CONTENT")),
        "Hi",
        "content filter cut it off",
    ),
    "reasoning that took all tokens": (
        raw(thought("reasoning_content", "Let me"), of(None, "length")),
        "",
        "sent reasoning and no text, with a limit of 128 tokens",
    ),
    "a limit without a text (Gemini)": (
        whole({"choices": [{"message": {"role": "assistant"}, "finish_reason": "length"}]}),
        "",
        "sent nothing and no text",
    ),
    "a picture": (
        whole(message([{"type": "image_url", "image_url": {"url": "data:"}}])),
        "",
        "sent image_url and no text",
    ),
}


@pytest.mark.parametrize(("answer", "written", "said"), ENDS.values(), ids=ENDS.keys())
def test_what_is_no_usable_text_fails_the_draft_and_is_told(
    answer: Raw, written: str, said: str
) -> None:
    for stream in (True, False):
        with server_for(Faults(script=deque([answer])), stream=stream) as server:
            got, last = report_of(server)
        assert got == written
        assert said in last["failed"]


def test_the_finish_of_a_limit_has_many_names() -> None:
    for name in ("length", "max_tokens", "MAX_TOKENS", "model_length"):
        with server_for(Faults(script=deque([raw(of("Hi"), of(None, name))]))) as server:
            written, last = report_of(server)
        assert (written, last["finish"]) == ("Hi", "length")
        assert "limit of 128 tokens" in last["out_of_room"]


def test_what_is_left_out_of_answers_is_told_once() -> None:
    parts = [{"type": "text", "text": "Hi."}, {"type": "audio", "audio": {}}]
    with server_for(Faults(script=deque([whole(message(parts))] * 3))) as server:
        with pytest.warns(UserWarning, match="no text, which are left out: audio"):
            assert report_of(server)[0] == "Hi."
        assert report_of(server)[0] == "Hi."  # a second warning would be an error here
        assert complete(server, QUESTION, seconds=5).text == "Hi."
    odd = raw(of("Hi."), of(None, "pause_turn"))
    with server_for(Faults(script=deque([odd, odd]))) as server:
        with pytest.warns(UserWarning, match="unknown reason 'pause_turn'"):
            assert report_of(server)[0] == "Hi."
        assert report_of(server)[1]["finish"] == "stop"


def test_a_server_that_writes_beyond_the_limit_is_cut_and_one_at_the_limit_keeps_its_reason() -> (
    None
):
    three = [of("one"), of(" two"), of(" three")]
    with server_for(Faults(script=deque([raw(*three, *three)]))) as server:
        assert report_of(server, max_tokens=3)[0] == "one two three"
    usage = {"choices": [], "usage": USAGE}
    with server_for(Faults(script=deque([raw(*three, of(None, "stop"), usage)]))) as server:
        written, last = report_of(server, max_tokens=3)
    assert (written, last["finish"]) == ("one two three", "stop")


def test_reasons_and_usage_after_a_broken_connection_are_not_asked_for_again() -> None:
    """The reason to finish has come, so the text is whole, whatever happens behind it."""
    broken = Raw((*raw(of("Hi.", "stop"), done=False).parts, b"\xff\xfe"))
    faults = Faults(script=deque([broken]))
    with server_for(faults) as server:
        assert report_of(server)[0] == "Hi."
    assert len(faults.bodies) == 1


# What a server does not take --------------------------------------------------------------------


def openai_error(name: str) -> object:
    newer = " Use 'max_completion_tokens' instead." * (name == "max_tokens")
    said = f"Unsupported parameter: '{name}' is not supported with this model.{newer}"
    return {"error": {"message": said, "param": name, "code": "unsupported_parameter"}}


SHAPES: dict[str, Callable[[str], object]] = {
    "OpenAI": openai_error,
    "Azure": lambda name: {
        "error": {"message": f"Unrecognized request argument supplied: {name}", "param": None}
    },
    "Groq": lambda name: {"error": {"message": f"property '{name}' is unsupported"}},
    "Mistral": lambda name: {
        "object": "error",
        "message": {"detail": [{"type": "extra_forbidden", "loc": ["body", name], "msg": "Extra"}]},
    },
    "FastAPI": lambda name: {
        "detail": [{"type": "extra_forbidden", "loc": ["body", name], "msg": "Extra inputs"}]
    },
    "vLLM": lambda name: {
        "object": "error",
        "message": f"[{{'type': 'extra_forbidden', 'loc': ('body', '{name}'), 'msg': 'Extra'}}]",
        "code": 400,
    },
    "Gemini": lambda name: [
        {"error": {"code": 400, "message": f'Unknown name "{name}": Cannot find field.'}}
    ],
    "TGI": lambda name: {"error": f"Input validation error: `{name}` must not be set"},
}
LOGPROBS = {"logprobs": True, "top_logprobs": 2}


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
@pytest.mark.parametrize("name", ["seed", "stream_options", "logprobs", "top_logprobs", "stream"])
def test_a_field_that_is_not_known_and_changes_no_text_is_left_out_and_told_once(
    name: str, shape: Callable[[str], object]
) -> None:
    faults = Faults(unknown={name: shape}, writes=lambda body: "Hi you.")
    with server_for(faults, **LOGPROBS) as server:
        with pytest.warns(UserWarning, match=f"does not take {name}: it is left out from now on"):
            assert report_of(server)[0] == "Hi you."
        assert [name in body for body in faults.bodies] == [True, False]
        assert report_of(server)[0] == "Hi you."  # another process: no word, and no refusal
        assert complete(server, QUESTION, seconds=5).text == "Hi you."
    assert not any(name in body for body in faults.bodies[1:])


@pytest.mark.parametrize("api", ["chat", "completions"])
def test_a_server_of_the_newer_limit_gets_it_after_the_first_refusal(api: str) -> None:
    faults = Faults(unknown={"max_tokens": openai_error}, writes=lambda body: "one two three four")
    with server_for(faults, api=api) as server:
        assert report_of(server, max_tokens=2)[0] == "one two"
        assert report_of(server, max_tokens=2)[0] == "one two"
        assert complete(server, QUESTION, seconds=5).text == "one two three four"
    assert ["max_tokens" in body for body in faults.bodies] == [True, False, False, False]
    assert faults.bodies[1]["max_completion_tokens"] == 2


def test_a_limit_that_is_too_large_is_not_sent_under_another_name() -> None:
    def too_large(name: str) -> object:
        return {"error": {"message": "max_tokens is too large: 128.", "param": "max_tokens"}}

    faults = Faults(unknown={"max_tokens": too_large})
    with server_for(faults) as server:
        assert "max_tokens is too large" in report_of(server)[1]["error"]
    assert len(faults.bodies) == 1


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
def test_a_setting_that_changes_the_text_is_named_and_a_neutral_one_left_out(
    shape: Callable[[str], object],
) -> None:
    faults = Faults(unknown={"temperature": shape}, writes=lambda body: "Hi you.")
    with server_for(faults) as server:
        asked = pytest.raises(ServerError, match=r"^temperature must be 1 for http.*, got 0\.7\.")
        with asked as caught:
            report_of(server, sampling={"temperature": 0.7})
        assert "It answered 400" in str(caught.value)
        assert "Set temperature = 1" in str(caught.value)
        assert len(faults.bodies) == 1
        with pytest.raises(ServerError, match="temperature must be 1"):
            request = CompletionRequest(prompt="Hi", max_tokens=4, sampling={"temperature": 0})
            complete(server, request, seconds=5)
        assert report_of(server, sampling={"temperature": 1.0})[0] == "Hi you."
        assert report_of(server, sampling={"temperature": 1.0})[0] == "Hi you."
    assert ["temperature" in body for body in faults.bodies] == [True, True, True, False, False]


def test_a_refusal_that_quotes_the_prompt_teaches_nothing_about_what_was_taken_before() -> None:
    said = "The prompt must not say 'temperature', 'seed' or 'stream_options'."
    refusal = Raw((json.dumps({"error": said}).encode(),), "application/json", status=400)
    faults = Faults(script=deque([None, refusal]), writes=lambda body: "Hi you.")
    sampling = {"temperature": 0.7}
    with server_for(faults) as server:
        assert report_of(server, sampling=sampling)[0] == "Hi you."
        assert said in report_of(server, sampling=sampling)[1]["error"]
        assert report_of(server, sampling=sampling)[0] == "Hi you."
    assert [len(body) for body in faults.bodies] == [len(faults.bodies[0])] * 3


def test_many_fields_are_learned_one_after_another_by_all_requests_at_once() -> None:
    unknown = dict.fromkeys(("seed", "stream_options", "logprobs", "max_tokens"), openai_error)
    faults = Faults(unknown=unknown, writes=lambda body: "Hi you.")
    with server_for(faults, **LOGPROBS) as server:
        process = ServerLanes(server, lambda item, edits: str(item))
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            for key in "abcdef":
                process.start(Lane(key), "Write.")
            while not all(process.output(key).ended for key in "abcdef"):
                process.step()
            process.step()
        process.close()
        assert {str(process.output(key)) for key in "abcdef"} == {"Hi you."}
    names = sorted(re.findall(r"does not take (\w+)", " ".join(str(one.message) for one in told)))
    assert names == ["logprobs", "seed", "stream_options"]


@pytest.mark.parametrize("before", [60, 75, 150, 390])
@pytest.mark.parametrize(
    ("status", "shape"),
    [(200, "{}"), (400, "{}"), (400, '{{"error": {{"message": "\'temperature\' {}"}}}}')],
    ids=["no answer", "refusal", "setting"],
)
def test_an_excerpt_holds_no_part_of_a_key_that_the_server_repeats(
    monkeypatch: pytest.MonkeyPatch, status: int, shape: str, before: int
) -> None:
    monkeypatch.setenv("KEY", "sk-secret-0123456789")
    said = shape.format("x" * before + "sk-secret-0123456789" + "y" * 99)
    answer = Raw((said.encode(),), "application/json", status)
    with server_for(Faults(script=deque([answer, answer])), key_env="KEY", retries=0) as server:
        request = replace(QUESTION, sampling={"temperature": 0.5})
        with pytest.raises((RetryableError, PermanentError, ServerError)) as caught:
            complete(server, request, seconds=5, attempts=1)
        assert "secret" not in str(caught.value)
        try:
            told = report_of(server, sampling={"temperature": 0.5})[1]["error"]
        except ServerError as error:
            told = str(error)
        assert "secret" not in told


def test_a_refusal_that_repeats_a_long_prompt_is_a_refusal() -> None:
    said = json.dumps({"detail": [{"msg": "Too long", "input": "x" * 2_000_000}]}).encode()
    with server_for(Faults(script=deque([Raw((said,), "application/json", 400)]))) as server:
        assert report_of(server)[1]["error"].startswith('It answered 400: {"detail"')


def test_the_other_refusals_are_told_in_the_server_s_words() -> None:
    errors = {
        '{"error": {"message": "Bad key", "code": "invalid_api_key"}}': "Bad key",
        '{"error": "overloaded", "error_type": "overloaded"}': "overloaded",
        '{"detail": "Not authenticated"}': "Not authenticated",
        '{"detail": [{"loc": ["body", "n"], "msg": "Bad"}]}': "body.n: Bad",
        '{"message": "No route"}': "No route",
        '[{"error": {"code": 400, "message": "Bad", "details": [{"a": 1}]}}]': "Bad",
        "upstream timed out": "upstream timed out",
        "[1, 2]": "[1, 2]",
    }
    assert {body: read_error(body).message for body in errors} == errors


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "2"}, 2.0),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after-ms": "250", "retry-after": "1"}, 0.25),
        ({"retry-after-ms": "soon", "retry-after": "1"}, 1.0),
        ({"retry-after": "-3"}, 0.0),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": ""}, None),
        ({"retry-after": "Wed, 21 Oct 99999 07:28:00 GMT"}, None),
        ({}, None),
    ],
    ids=str,
)
def test_the_wait_that_a_server_demands(headers: dict[str, str], seconds: float | None) -> None:
    now = datetime(2026, 5, 1, 12, tzinfo=UTC)
    assert retry.wait_demanded(headers, now) == seconds
    date = format_datetime(now + timedelta(seconds=90), usegmt=True)
    assert retry.wait_demanded({"retry-after": date}, now) == 90
