"""What a request's checks are compiled to is made beside the loop that all requests share."""

from __future__ import annotations

import json
import threading
from typing import Any
from urllib.request import urlopen

import pytest
from served import asked, post, serving

from ostinato.serve import app, desk

CHECKS: Any = {"checks": [{"kind": "regex", "pattern": "[A-Z].*"}], "strategy": "abort"}


def held(free: threading.Event, begun: threading.Event, real: Any) -> Any:
    """Return what waits before it does what it is for, as something dear to compile does."""

    def wait(*given: Any, **named: Any) -> Any:
        begun.set()
        free.wait(20)
        return real(*given, **named)

    return wait


@pytest.mark.parametrize(("where", "name"), [(app, "read_request"), (desk, "plan")])
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


@pytest.mark.parametrize(("where", "name"), [(app, "read_request"), (desk, "plan")])
def test_what_is_not_ready_in_its_time_is_refused(
    where: Any, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = threading.Event()
    monkeypatch.setattr(where, name, held(free, threading.Event(), getattr(where, name)))
    with serving(check_seconds=0.02) as (port, _):
        status, told = post(port, asked(**CHECKS))
        free.set()
    assert status == 400
    assert "must be ready within 0.1 seconds, and are not" in told["error"]["message"]


@pytest.mark.parametrize("name", ["checks", "response_format"])
def test_checks_and_forms_that_are_too_large_to_compile_are_refused(name: str) -> None:
    words = [f"word{n}" for n in range(4000)]
    schema = {"type": "json_schema", "json_schema": {"schema": {"enum": words}}}
    value = [{"kind": "excludes", "texts": words}] if name == "checks" else schema
    with serving() as (port, _):
        status, told = post(port, asked(**{name: value}))
    assert status == 400 and told["error"]["param"] == name
    assert "must have at most 32768 bytes of JSON, got " in told["error"]["message"]
