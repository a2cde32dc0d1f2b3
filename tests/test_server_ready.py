"""What a request's checks are compiled to is made beside the loop that all requests share."""

from __future__ import annotations

import http.client
import json
import threading
from typing import Any
from urllib.request import urlopen

import pytest
from served import asked, post, serving

from ostinato.server import app, scheduler

CHECKS: Any = {"checks": [{"kind": "regex", "pattern": "[A-Z].*"}], "strategy": "abort"}


def held(free: threading.Event, begun: threading.Event, real: Any) -> Any:
    """Return what waits before it does what it is for, as something dear to compile does."""

    def wait(*given: Any, **named: Any) -> Any:
        begun.set()
        free.wait(20)
        return real(*given, **named)

    return wait


@pytest.mark.parametrize(("where", "name"), [(app, "read_request"), (scheduler, "plan")])
def test_others_are_answered_while_a_pattern_is_compiled(
    where: Any, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    free, begun = threading.Event(), threading.Event()
    monkeypatch.setattr(where, name, held(free, begun, getattr(where, name)))
    answers: list[tuple[int, Any]] = []
    with serving() as (port, _):
        asker = threading.Thread(target=lambda: answers.append(post(port, asked(**CHECKS))))
        asker.start()
        assert begun.wait(10)
        with urlopen(f"http://127.0.0.1:{port}/health", timeout=10) as answer:
            assert json.load(answer)["status"] == "ok"
        assert not answers
        free.set()
        asker.join(20)
    assert answers[0][0] == 200


@pytest.mark.parametrize(("where", "name"), [(app, "read_request"), (scheduler, "plan")])
def test_what_is_not_ready_in_its_time_is_refused(
    where: Any, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = threading.Event()
    monkeypatch.setattr(where, name, held(free, threading.Event(), getattr(where, name)))
    with serving(check_seconds=0.02) as (port, _):
        status, told = post(port, asked(**CHECKS))
        free.set()
    assert status == 400
    assert "must be compiled within 0.1 seconds, and were not" in told["error"]["message"]


@pytest.mark.parametrize("name", ["checks", "response_format"])
def test_checks_and_forms_that_are_too_large_to_compile_are_refused(name: str) -> None:
    words = [f"word{n}" for n in range(4000)]
    schema = {"type": "json_schema", "json_schema": {"schema": {"enum": words}}}
    value = [{"kind": "excludes", "texts": words}] if name == "checks" else schema
    with serving() as (port, _):
        status, told = post(port, asked(**{name: value}))
    assert status == 400 and told["error"]["param"] == name
    assert "must have at most 32768 bytes of JSON, got " in told["error"]["message"]


HALF = "a \ud83d"


@pytest.mark.parametrize(
    "more",
    [
        {"checks": [{"kind": "contains", "texts": [HALF]}]},
        {"checks": [{"kind": "contains", "column": "said"}], "columns": {"said": [HALF]}},
        {"checks": [{"kind": "length", "name": HALF, "max": 3}]},
        {"stop": HALF},
        {"columns": {HALF: 1}},
    ],
)
def test_half_a_character_is_refused_and_breaks_no_batch(more: dict[str, Any]) -> None:
    with serving() as (port, _):
        status, told = post(port, asked(**more))
        assert (status, post(port, asked(seed=1))[0]) == (400, 200)
    assert "must hold whole characters" in told["error"]["message"]


def test_a_request_cannot_keep_its_slot_forever() -> None:
    strategy = {"kind": "resample", "rounds": 10**9}
    with serving() as (port, _):
        status, told = post(port, asked(checks=CHECKS["checks"], strategy=strategy))
    assert status == 400 and "'strategy.rounds' must be at most 100" in told["error"]["message"]


def test_a_column_that_cannot_be_read_is_the_requests_mistake() -> None:
    held: Any = {"checks": [{"kind": "choice", "column": "of"}], "columns": {"of": {"a": 1}}}
    with serving() as (port, _):
        status, told = post(port, asked(**held, strategy="constrain"))
        judged, answer = post(port, asked(**held))
    assert status == 400 and told["error"]["param"] == "strategy"
    (verdict,) = answer["choices"][0]["ostinato"]["verdicts"]
    assert judged == 200 and "must hold a text or a list of texts" in verdict["error"]


def test_a_refusal_names_what_is_allowed_and_how_to_ask() -> None:
    with serving(key="right") as (port, _):
        for method, path, status, name, value in (
            ("GET", "/v1/chat/completions", 405, "Allow", "POST"),
            ("GET", "/v1/models", 401, "WWW-Authenticate", "Bearer"),
        ):
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
            connection.request(method, path)
            response = connection.getresponse()
            assert (response.status, response.getheader(name)) == (status, value)
            connection.close()
