"""The API over HTTP, as an ASGI application. Knows what is asked and told; the desk writes."""

from __future__ import annotations

import asyncio
import hmac
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from ostinato.errors import MissingExtra
from ostinato.server.body_fields import RequestError
from ostinato.server.protocol import ApiRequest, read_request
from ostinato.server.request_plan import in_time
from ostinato.server.requests import Delta, Finished, GenerationRequest
from ostinato.server.responses import Answer
from ostinato.server.scheduler import Scheduler

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request as HttpRequest
    from starlette.responses import Response
    from starlette.types import ASGIApp, Receive, Scope, Send

LARGEST = 1 << 20  # bytes of a request
ALIVE = 5.0  # seconds: a stream without a word for so long sends a comment
RETRY_AFTER = "1"

Events = asyncio.Queue[tuple[int, Delta | Finished]]
Handler = Callable[["HttpRequest"], Awaitable["Response"]]


def application(
    desk: Scheduler,
    *,
    model: str,
    hosts: Sequence[str] = ("127.0.0.1", "localhost", "::1"),
    key: str = "",
) -> Starlette:
    """Return the ASGI application that serves a desk.

    `model` is the name under which requests ask for it, `hosts` the names in the address by which
    it is reached (a page of another origin cannot reach it through a name of its own), `key` what
    every request must carry; empty: none.
    """
    try:
        from starlette.applications import Starlette
        from starlette.exceptions import HTTPException
        from starlette.middleware import Middleware
        from starlette.routing import Route
    except ImportError:
        raise MissingExtra("A model as a server", "serve") from None
    pages = _Pages(desk, model, key)
    routes = [
        Route("/v1/chat/completions", pages.answer(chat=True), methods=["POST"]),
        Route("/v1/completions", pages.answer(chat=False), methods=["POST"]),
        Route("/v1/models", pages.models),
        Route("/v1/models/{name:path}", pages.one_model),
        Route("/health", pages.health),
    ]
    hosts_only = Middleware(_HostsOnly, hosts=frozenset(map(str.lower, hosts)))
    errors = {HTTPException: _http_error, RequestError: _request_error, Exception: _broken}
    return Starlette(routes=routes, middleware=[hosts_only], exception_handlers=errors)


class _HostsOnly:
    """Refuses what is asked under another host's name, as a page that has bent its own name is."""

    def __init__(self, app: ASGIApp, hosts: frozenset[str]) -> None:
        self._app, self._hosts = app, hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            headers = dict(scope["headers"])
            host = headers.get(b"host", b"").decode("latin-1")
            if _name(host) not in self._hosts:
                error = RequestError(
                    400,
                    f"The host must be {' or '.join(sorted(self._hosts))}, got {host!r}. The one "
                    "who serves can allow it: --allow-host.",
                )
                await _json(error.to_json(), 400)(scope, receive, send)
                return
        await self._app(scope, receive, send)


def _name(host: str) -> str:
    """Return a host's name without its port."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


@dataclass
class _Tally:
    """What was sent to all, in tokens, ends of texts included."""

    sent: int = 0


class _Pages:
    """What each address answers."""

    def __init__(self, desk: Scheduler, model: str, key: str) -> None:
        self._desk, self._model, self._key = desk, model, key
        self._tally = _Tally()

    async def health(self, request: HttpRequest) -> Response:
        """Tell that it is there, and how many tokens it has computed (in vain too) and sent."""
        counts = {"computed": self._desk.computed, "sent": self._tally.sent}
        return _json({"status": "ok", **counts})

    async def models(self, request: HttpRequest) -> Response:
        """List the model."""
        self._check_key(request)
        return _json({"object": "list", "data": [self._told()]})

    async def one_model(self, request: HttpRequest) -> Response:
        """Tell of the model."""
        self._check_key(request)
        name = request.path_params["name"]
        if name != self._model:
            raise RequestError(
                404, f"The model {name!r} does not exist here.", "model", "model_not_found"
            )
        return _json(self._told())

    def answer(self, *, chat: bool) -> Handler:
        """Return what answers at one of the two addresses."""

        async def answered(http: HttpRequest) -> Response:
            self._check_key(http)
            value = await _body(http)
            read = partial(
                read_request, value, chat=chat, models=[self._model], longest=self._desk.longest
            )  # patterns are compiled: not in the loop that all others wait for
            request = await asyncio.to_thread(in_time, read, self._desk.ready_seconds)
            return await self._answer(http, request)

        return answered

    async def _answer(self, http: HttpRequest, request: ApiRequest) -> Response:
        from starlette.responses import StreamingResponse

        events: Events = asyncio.Queue()
        loop = asyncio.get_running_loop()
        tells = [partial(_tell, loop, events, n) for n in range(request.choices)]
        orders = await asyncio.to_thread(self._desk.request, request, tells)
        answer = Answer(chat=request.chat, model=self._model)
        if request.stream:
            stream = _stream(answer, request, orders, events, self._tally)
            return StreamingResponse(stream, media_type="text/event-stream")
        try:
            rows = await _wait(http, orders, events)
        except BaseException:
            _cancel(orders)
            raise
        self._tally.sent += sum(int(row["length"]) for row in rows)
        return _json(answer.whole(orders, rows))

    def _check_key(self, request: HttpRequest) -> None:
        if not self._key:
            return
        given = request.headers.get("authorization", "").removeprefix("Bearer ")
        if not hmac.compare_digest(given.encode(), self._key.encode()):
            raise RequestError(
                401,
                "The request must carry the server's key, and does not. Send it as "
                "'Authorization: Bearer …'.",
                code="invalid_api_key",
            )

    def _told(self) -> dict[str, Any]:
        return {"id": self._model, "object": "model", "created": 0, "owned_by": "ostinato"}


# Orders and their events ------------------------------------------------------------------------


def _tell(
    loop: asyncio.AbstractEventLoop, events: Events, number: int, event: Delta | Finished
) -> None:
    """Hand an event over from the thread that writes."""
    if not loop.is_closed():
        loop.call_soon_threadsafe(events.put_nowait, (number, event))


def _cancel(orders: Sequence[GenerationRequest]) -> None:
    for order in orders:
        order.canceled = True


async def _wait(
    http: HttpRequest, orders: Sequence[GenerationRequest], events: Events
) -> list[Any]:
    """Wait for all ends, as long as somebody waits for the answer."""
    rows: dict[int, Any] = {}
    while len(rows) < len(orders):
        try:
            number, event = await asyncio.wait_for(events.get(), 0.5)
        except TimeoutError:
            if await http.is_disconnected():
                raise RequestError(499, "The one who asked has gone.") from None
            continue
        if isinstance(event, Finished):
            rows[number] = _row(event)
    return [rows[number] for number in range(len(orders))]


def _row(done: Finished) -> Any:
    if done.error is not None:
        raise done.error
    stopped = done.row["stopped"]
    if stopped["kind"] == "error" and not done.row["verdicts"]:
        raise RequestError(400, stopped["sentence"])
    return done.row


async def _stream(
    answer: Answer,
    request: ApiRequest,
    orders: Sequence[GenerationRequest],
    events: Events,
    tally: _Tally,
) -> AsyncIterator[str]:
    """Yield the events of a stream; leaving it cancels what is not done."""
    rows: dict[int, Any] = {}
    told = [0] * len(orders)  # tokens of each
    try:
        if request.chat:
            for number in range(len(orders)):
                yield _event(answer.begin(number))
        while len(rows) < len(orders):
            try:
                number, event = await asyncio.wait_for(events.get(), ALIVE)
            except TimeoutError:
                yield ": still writing\n\n"
                continue
            if isinstance(event, Delta):
                told[number] += event.count
                tally.sent += event.count
                yield _event(answer.piece(number, event))
            else:
                rows[number] = row = _row(event)
                tally.sent += int(row["length"]) - told[number]
                yield _event(answer.end(number, orders[number], row))
        if request.usage:
            yield _event(answer.usage(orders, [rows[n] for n in range(len(orders))]))
    except RequestError as error:
        yield _event(error.to_json())
    finally:
        _cancel(orders)
    yield "data: [DONE]\n\n"


def _event(value: Any) -> str:
    return f"data: {json.dumps(value)}\n\n"


# Requests and errors ----------------------------------------------------------------------------


async def _body(request: HttpRequest) -> Any:
    """Read a request's JSON. Raises `RequestError` for too much of it, and for what is none."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip()
    if kind != "application/json":  # a page of another origin can send other types unasked
        raise RequestError(415, f"The body must be application/json, got {kind or 'no type'}.")
    content = b""
    async for chunk in request.stream():
        content += chunk
        if len(content) > LARGEST:
            raise RequestError(413, f"The body must have at most {LARGEST} bytes, got more.")
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        raise RequestError(400, "The body must be JSON, and is not.") from None


def _json(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    from starlette.responses import Response

    content = json.dumps(value, allow_nan=False)
    return Response(content, status, headers, media_type="application/json")


async def _request_error(request: HttpRequest, error: Exception) -> Response:
    assert isinstance(error, RequestError)
    later = {"Retry-After": RETRY_AFTER} if error.status in (429, 503) else None
    how = {"WWW-Authenticate": "Bearer"} if error.status == 401 else None
    return _json(error.to_json(), error.status, later or how)


async def _http_error(request: HttpRequest, error: Exception) -> Response:
    status, said = getattr(error, "status_code", 500), getattr(error, "detail", "")
    path = request.url.path
    told = RequestError(status, f"{said}: {request.method} {path}.").to_json()
    return _json(told, status, getattr(error, "headers", None))


async def _broken(request: HttpRequest, error: Exception) -> Response:
    return _json(RequestError(500, "Something broke; see the server's log.").to_json(), 500)
