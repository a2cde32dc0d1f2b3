"""A flow served as a model: each request runs it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from served import application_at, post
from tiny import tiny_model

from ostinato.checks import Length
from ostinato.cli.main import cli
from ostinato.errors import InputError
from ostinato.flow import Flow, ask, flow, generate
from ostinato.server import FlowScheduler


@contextmanager
def serving_flow(served: Flow[..., Any]) -> Iterator[int]:
    scheduler = FlowScheduler(served, tiny_model(), slots=4)
    try:
        with application_at(scheduler, model="flow") as port:
            yield port
    finally:
        scheduler.close(at_once=True)


def asked(text: str, **more: Any) -> dict[str, Any]:
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": text}]
    return {"model": "flow", "messages": messages, **more}


def content(answer: Any) -> str:
    return str(answer["choices"][0]["message"]["content"])


@flow
def shouts(text: str) -> str:
    if text == "wrong":
        raise ValueError("a secret path")
    if text == "person":
        return str(ask("How?"))
    written = generate(text, [Length(min=1)], max_new_tokens=8)
    return f"{text.upper()}: {written}"


def test_a_request_gets_what_the_flow_returns() -> None:
    with serving_flow(shouts) as port:
        status, answer = post(port, asked("hello"))
        assert (status, answer["model"]) == (200, "flow")
        assert content(answer).startswith("HELLO: ")
        assert answer["choices"][0]["finish_reason"] == "stop"
        _, again = post(port, asked("hello"))
        assert content(again) != "" and content(again).startswith("HELLO: ")
        status, stream = post(port, asked("hello", stream=True))
        assert status == 200 and "HELLO: " in stream and stream.endswith("data: [DONE]\n\n")
        status, listed = post(port, {"model": "flow", "prompt": "hi"}, "/v1/completions")
        assert status == 200 and listed["choices"][0]["text"].startswith("HI: ")


def test_requests_are_served_side_by_side() -> None:
    answers: dict[int, Any] = {}
    with serving_flow(shouts) as port:

        def request(number: int) -> None:
            answers[number] = post(port, asked(f"number {number}"))

        threads = [threading.Thread(target=request, args=(n,)) for n in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
    assert {n: content(answer).partition(":")[0] for n, (_, answer) in answers.items()} == {
        n: f"NUMBER {n}" for n in range(6)
    }


def test_a_flow_that_fails_ends_its_request_alone(caplog: pytest.LogCaptureFixture) -> None:
    with serving_flow(shouts) as port:
        status, answer = post(port, asked("wrong"))
        assert status == 500 and "secret" not in str(answer)
        assert "ValueError: a secret path at test_server_flow.py" in caplog.text
        status, answer = post(port, asked("person"))
        assert status == 500
        assert "must be recorded" in caplog.text
        assert post(port, asked("right"))[0] == 200


@pytest.mark.parametrize(
    "more",
    [{"checks": [{"kind": "length", "max": 3}]}, {"strategy": "resample"}, {"logprobs": True}],
)
def test_what_the_flow_decides_is_refused(more: dict[str, Any]) -> None:
    with serving_flow(shouts) as port:
        status, answer = post(port, asked("hello", **more))
        assert status == 400
        assert next(iter(more)) in answer["error"]["message"]


def test_a_flow_gets_the_whole_conversation_under_its_name() -> None:
    @flow
    def counts(messages: list[dict[str, str]]) -> str:
        return ", ".join(each["role"] for each in messages)

    with serving_flow(counts) as port:
        assert content(post(port, asked("a"))[1]) == "system, user"

    @flow
    def two(one: str, other: str) -> str:
        return one + other

    with pytest.raises(InputError, match="a function of one parameter"):
        FlowScheduler(two, tiny_model())


@pytest.mark.parametrize("option", ["--job x.toml", "--check-seconds 2"])
def test_options_that_a_flow_decides_are_refused(tmp_path: Path, option: str) -> None:
    program = tmp_path / "program.py"
    program.write_text("from ostinato.flow import flow\n@flow\ndef a(text): return text\n")
    result = CliRunner().invoke(cli, ["serve", "--flow", str(program), *option.split()])
    assert isinstance(result.exception, InputError)
    assert f"{option.split()[0]} must be left out with --flow" in str(result.exception)
