"""The API over HTTP, as an ASGI application.

Knows addresses, bodies and streams; the scheduler generates, in a thread of its own.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from email.message import Message
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from ostinato.errors import MissingExtra
from ostinato.journal import StopKind
from ostinato.loop import LaneResult
from ostinato.server.body_fields import RequestError
from ostinato.server.flow_scheduler import FlowScheduler
from ostinato.server.protocol import ApiRequest, read_request
from ostinato.server.request_plan import in_time
from ostinato.server.requests import Delta, Event, Sink
from ostinato.server.responses import Answer, Served
from ostinato.server.scheduler import Scheduler

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request as HttpRequest
    from starlette.responses import Response
    from starlette.types import ASGIApp, Receive, Scope, Send

LARGEST = 1 << 20  # bytes of a request
KEEP_ALIVE = 5.0  # seconds without an event after which a stream sends a comment
LOOK = 0.5  # seconds after which it looks whether the client of a whole answer is still there
RETRY_AFTER = "1"
UTF8 = frozenset({"utf-8", "utf8", "us-ascii", "ascii"})  # ASCII is part of it
TOO_DEEP = "The body must be nested less deeply: it exceeds the parser's stack. Flatten it."

Events = asyncio.Queue[tuple[int, Event]]
Handler = Callable[["HttpRequest"], Awaitable["Response"]]


def application(
    scheduler: Scheduler | FlowScheduler,
    *,
    model: str,
    hosts: Sequence[str] = ("127.0.0.1", "localhost", "::1"),
    key: str = "",
    sampling: Mapping[str, float] | None = None,
) -> Starlette:
    """Return the ASGI application in front of a scheduler.

    `model` is the name that requests must use. `hosts` are the host names it answers under: a web
    page of another origin that resolves its own name to this address is refused. `key` is the API
    key of every request, empty for none. `sampling` are settings where a request names none, such
    as those that the model recommends (`ostinato.models.recommended_sampling`).
    """
    try:
        from starlette.applications import Starlette
        from starlette.exceptions import HTTPException
        from starlette.middleware import Middleware
        from starlette.routing import Route
    except ImportError:
        raise MissingExtra("A model as a server", "serve") from None
    pages = _Pages(scheduler, model, key, sampling or {})
    routes = [
        Route("/v1/chat/completions", pages.answer(chat=True), methods=["POST"]),
        Route("/v1/completions", pages.answer(chat=False), methods=["POST"]),
        Route("/v1/models", pages.models),
        # `path`: names from the Hugging Face Hub contain a slash.
        Route("/v1/models/{name:path}", pages.one_model),
        Route("/health", pages.health),
    ]
    hosts_only = Middleware(_HostsOnly, hosts=frozenset(map(str.lower, hosts)))
    errors = {HTTPException: _http_error, RequestError: _request_error, Exception: _broken}
    return Starlette(routes=routes, middleware=[hosts_only], exception_handlers=errors)


class _HostsOnly:
    """Refuses other host names, against DNS rebinding: a page can point its own name here."""

    def __init__(self, app: ASGIApp, hosts: frozenset[str]) -> None:
        self._app, self._hosts = app, hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        # Others are lifespan events, which have no headers.
        if scope["type"] == "http":
            headers = dict(scope["headers"])
            host = headers.get(b"host", b"").decode("latin-1")
            if _name(host) not in self._hosts:
                error = RequestError(
                    400,
                    f"The host must be {' or '.join(sorted(self._hosts))}, got {host!r}. The "
                    "operator can allow it with --allow-host.",
                )
                await _json(error.to_json(), 400)(scope, receive, send)
                return
        await self._app(scope, receive, send)


def _name(host: str) -> str:
    """Return a host name without its port, empty if it is malformed."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


@dataclass
class _Tally:
    """The tokens sent to all clients, ends of text included."""

    sent: int = 0


class _Pages:
    """The handlers of the API's addresses."""

    def __init__(
        self,
        scheduler: Scheduler | FlowScheduler,
        model: str,
        key: str,
        sampling: Mapping[str, float],
    ) -> None:
        self._scheduler, self._model, self._key = scheduler, model, key
        self._sampling = sampling
        self._tally = _Tally()

    async def health(self, request: HttpRequest) -> Response:
        """Report that the server is up, and the tokens computed (also in vain) and sent."""
        counts = {"computed": self._scheduler.computed, "sent": self._tally.sent}
        return _json({"status": "ok", **counts})

    async def models(self, request: HttpRequest) -> Response:
        """List the one model that is served."""
        self._check_key(request)
        return _json({"object": "list", "data": [self._description()]})

    async def one_model(self, request: HttpRequest) -> Response:
        """Describe the model. Raises `RequestError` 404 for another name."""
        self._check_key(request)
        name = request.path_params["name"]
        if name != self._model:
            raise RequestError(
                404,
                f"The model {name!r} does not exist here. It must be {self._model}.",
                "model",
                "model_not_found",
            )
        return _json(self._description())

    def answer(self, *, chat: bool) -> Handler:
        """Return the handler of one of the two APIs."""

        async def handler(http: HttpRequest) -> Response:
            self._check_key(http)
            value = await _body(http)
            longest = self._scheduler.longest
            read = partial(
                read_request,
                value,
                chat=chat,
                models=[self._model],
                longest=longest,
                sampling=self._sampling,
            )
            try:
                # In a thread: reading compiles patterns, and the event loop serves all clients.
                body = await asyncio.to_thread(in_time, read, self._scheduler.ready_seconds)
                return await self._answer(http, body)
            except RecursionError:  # of a value that the parser's stack had room for
                raise RequestError(400, TOO_DEEP) from None

        return handler

    async def _answer(self, http: HttpRequest, body: ApiRequest) -> Response:
        # Starlette is an extra: imported where it is used.
        from starlette.responses import StreamingResponse

        events: Events = asyncio.Queue()
        loop = asyncio.get_running_loop()
        sinks = [partial(_put, loop, events, n) for n in range(body.choices)]
        submit: Callable[[ApiRequest, Sequence[Sink]], Sequence[Served]] = self._scheduler.submit
        requests = await asyncio.to_thread(submit, body, sinks)
        answer = Answer(chat=body.chat, model=self._model)
        if body.stream:
            stream = _stream(answer, body, requests, events, self._tally)
            return StreamingResponse(stream, media_type="text/event-stream")
        try:
            results = await _wait(http, requests, events)
        except BaseException:  # also a cancellation
            _cancel(requests)
            raise
        self._tally.sent += sum(result.length for result in results)
        return _json(answer.whole(requests, results))

    def _check_key(self, request: HttpRequest) -> None:
        if not self._key:
            return
        scheme, _, key = request.headers.get("authorization", "").strip().partition(" ")
        # The names of schemes have no case (RFC 9110).
        key = key.strip() if scheme.lower() == "bearer" else ""
        # In constant time: a comparison that stops at the first difference leaks the key.
        if not hmac.compare_digest(key.encode(), self._key.encode()):
            raise RequestError(
                401,
                "The API key must be the server's, got another or none. Send it as "
                "'Authorization: Bearer …'.",
                code="invalid_api_key",
            )

    def _description(self) -> dict[str, Any]:
        return {"id": self._model, "object": "model", "created": 0, "owned_by": "ostinato"}


# Requests and their events ----------------------------------------------------------------------


def _put(loop: asyncio.AbstractEventLoop, events: Events, number: int, event: Event) -> None:
    """Pass an event from the generating thread to the event loop."""
    # The generating thread can outlive the event loop when the server ends.
    if not loop.is_closed():
        loop.call_soon_threadsafe(events.put_nowait, (number, event))


def _cancel(requests: Sequence[Served]) -> None:
    for request in requests:
        request.canceled = True


async def _wait(http: HttpRequest, requests: Sequence[Served], events: Events) -> list[LaneResult]:
    """Return the results of all choices. Raises `RequestError` if the client disconnects."""
    results: dict[int, LaneResult] = {}
    looked = time.monotonic()
    while len(results) < len(requests):
        # A client that has left keeps its slots until it is noticed here, also between two tokens.
        if time.monotonic() - looked >= LOOK:
            looked = time.monotonic()
            if await http.is_disconnected():
                raise RequestError(499, "The client has disconnected.")
        try:
            number, event = await asyncio.wait_for(events.get(), LOOK)
        except TimeoutError:
            continue
        if not isinstance(event, Delta):
            results[number] = _result(event)
    return [results[number] for number in range(len(requests))]


def _result(end: LaneResult | RequestError) -> LaneResult:
    if isinstance(end, RequestError):
        raise end
    # Verdicts with an error are an answer: the client sees which check could not judge.
    if end.stopped.kind is StopKind.ERROR and not end.verdicts:
        raise RequestError(400, end.stopped.sentence)
    return end


async def _stream(
    answer: Answer,
    body: ApiRequest,
    requests: Sequence[Served],
    events: Events,
    tally: _Tally,
) -> AsyncIterator[str]:
    """Yield the events of a stream; closing it cancels what is unfinished."""
    results: dict[int, LaneResult] = {}
    sent = [0] * len(requests)  # tokens of each choice
    try:
        if body.chat:
            for number in range(len(requests)):
                yield _event(answer.role_chunk(number))
        while len(results) < len(requests):
            try:
                number, event = await asyncio.wait_for(events.get(), KEEP_ALIVE)
            except TimeoutError:
                yield ": still generating\n\n"
                continue
            if isinstance(event, Delta):
                sent[number] += event.count
                tally.sent += event.count
                yield _event(answer.text_chunk(number, event))
            else:
                results[number] = result = _result(event)
                tally.sent += result.length - sent[number]  # the end of text, for example
                yield _event(answer.final_chunk(number, requests[number], result))
        if body.usage:
            yield _event(answer.usage_chunk(requests, [results[n] for n in range(len(requests))]))
    except RequestError as error:
        yield _event(error.to_json())
    finally:
        _cancel(requests)
    yield "data: [DONE]\n\n"


def _event(value: Any) -> str:
    return f"data: {json.dumps(value)}\n\n"


# Bodies and errors ------------------------------------------------------------------------------


async def _body(request: HttpRequest) -> Any:
    """Read a body's JSON. Raises `RequestError` if it is too large, or not JSON."""
    given = Message()
    given["content-type"] = request.headers.get("content-type", "none")
    # A web page of another origin can send the other types without a preflight request.
    if given.get_content_type() != "application/json":
        raise RequestError(
            415,
            f"The Content-Type must be application/json, got {given['content-type']}. Send JSON.",
        )
    if given.get_content_charset("utf-8") not in UTF8:
        raise RequestError(
            415, f"The charset must be UTF-8, got {given.get_content_charset()}. Send UTF-8."
        )
    # Counted while it arrives: a Content-Length can be missing or wrong.
    content = b""
    async for chunk in request.stream():
        content += chunk
        if len(content) > LARGEST:
            raise RequestError(413, f"The body must have at most {LARGEST} bytes, got more.")
    try:
        return json.loads(content.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise RequestError(
            400, f"The body must be UTF-8, got other bytes at {error.start}. Encode it so."
        ) from None
    except ValueError:
        raise RequestError(400, "The body must be JSON, got wrong syntax. Fix it.") from None
    except RecursionError:
        raise RequestError(400, TOO_DEEP) from None


def _json(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    from starlette.responses import Response

    # NaN is no JSON; it would be a fault of ours, not of the client.
    content = json.dumps(value, allow_nan=False)
    return Response(content, status, headers, media_type="application/json")


async def _request_error(request: HttpRequest, error: Exception) -> Response:
    assert isinstance(error, RequestError)
    headers = None
    if error.status in (429, 503):
        headers = {"Retry-After": RETRY_AFTER}
    elif error.status == 401:
        headers = {"WWW-Authenticate": "Bearer"}
    return _json(error.to_json(), error.status, headers)


async def _http_error(request: HttpRequest, error: Exception) -> Response:
    from starlette.exceptions import HTTPException

    assert isinstance(error, HTTPException)
    sentence = f"{error.detail}: {request.method} {request.url.path}."
    value = RequestError(error.status_code, sentence).to_json()
    return _json(value, error.status_code, error.headers)


async def _broken(request: HttpRequest, error: Exception) -> Response:
    return _json(RequestError(500, "The server failed. Its log has the error.").to_json(), 500)
