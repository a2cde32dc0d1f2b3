"""A tiny model that is served while a test asks it."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn
from faulty_server import free_port
from tiny import tiny_model

from ostinato.server import Scheduler, application

MESSAGES: list[Any] = [{"role": "user", "content": "What is the phone number?"}]


@contextmanager
def serving(key: str = "", **settings: Any) -> Iterator[tuple[int, Scheduler]]:
    scheduler = Scheduler(tiny_model(), **settings)
    try:
        with application_at(scheduler, model="tiny", key=key) as port:
            yield port, scheduler
    finally:
        scheduler.close(at_once=True)


@contextmanager
def application_at(scheduler: Any, **settings: Any) -> Iterator[int]:
    app = application(scheduler, **settings)
    port = free_port()
    config = uvicorn.Config(app, port=port, log_level="critical", lifespan="off")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield port
    finally:
        server.should_exit = True
        thread.join(10)


def post(
    port: int, value: Any, path: str = "/v1/chat/completions", **headers: str
) -> tuple[int, Any]:
    content = value if isinstance(value, bytes) else json.dumps(value).encode()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    given = {"Content-Type": "application/json"} | {
        name.replace("_", "-"): text for name, text in headers.items()
    }
    try:
        connection.request("POST", path, content, given)
        response = connection.getresponse()
        text = response.read()
        return response.status, json.loads(text) if text.startswith(b"{") else text.decode()
    finally:
        connection.close()


def ours(choice: Any) -> Any:
    """Return what the API has no words for."""
    return choice.model_extra["ostinato"]


def asked(**more: Any) -> dict[str, Any]:
    return {"model": "tiny", "messages": MESSAGES, "max_tokens": 8, **more}
