"""One answer in one blocking call, with the standard library only: for a judge, not for lanes.

Knows no stream and no thread. What a request says and what an answer means is in `openai_api`;
`client` is the asynchronous counterpart, and needs the extra `server`.
"""

from __future__ import annotations

import json
import time
import warnings
from dataclasses import replace
from http.client import HTTPException
from typing import Any
from urllib.error import HTTPError
from urllib.request import HTTPRedirectHandler, Request, build_opener

from ostinato.remote.answer import AnswerReader, response_error
from ostinato.remote.dialect import Dialect, dialect_of
from ostinato.remote.openai_api import CompletionRequest, StreamChunk, endpoint, request_body
from ostinato.remote.retry import (
    Adapted,
    PermanentError,
    RetryableError,
    ServerError,
    redact,
    wait,
)
from ostinato.remote.server import Server

LONGEST_BODY = 1 << 20  # bytes of a response
LEAST_TIMEOUT = 0.1  # seconds; a socket takes 0 for "do not block"


def complete(
    server: Server, request: CompletionRequest, *, seconds: float, attempts: int = 3
) -> StreamChunk:
    """Return a server's whole answer, within `seconds` for all attempts together.

    Transient failures are retried, after the wait that the server demands if there is one. Raises
    the last one, a `RetryableError`, `PermanentError` or `ServerError`; no message shows the key.
    """
    server = replace(server, stream=False)
    key, deadline = server.key(), time.monotonic() + seconds
    dialect = dialect_of(server)
    failures = 0
    while True:
        try:
            return _send(server, key, request, deadline, dialect)
        except Adapted:
            continue
        except RetryableError as error:
            failures += 1
            # Half of the jitter's range: there is one caller, whom nobody has to avoid.
            pause = wait(failures, 0.5, error.after)
            if failures >= attempts or time.monotonic() + pause >= deadline:
                raise RetryableError(redact(str(error), key)) from None
        except (PermanentError, ServerError) as error:
            raise type(error)(redact(str(error), key)) from None
        finally:
            for notice in dialect.take_notices():
                warnings.warn(notice, stacklevel=2)
        time.sleep(pause)


class _NoRedirects(HTTPRedirectHandler):
    """A redirect is an error: the key is for the server that was named, and no other."""

    def redirect_request(self, *_: Any) -> None:
        """Return no request, which makes `urllib` raise `HTTPError`."""


_opener = build_opener(_NoRedirects)


def _send(
    server: Server, key: str, request: CompletionRequest, deadline: float, dialect: Dialect
) -> StreamChunk:
    headers = {"Content-Type": "application/json"}
    if key:
        headers["Authorization"] = f"Bearer {key}"
    body = dialect.adapt(request_body(server, request))
    content = json.dumps(body).encode()
    http = Request(endpoint(server), content, headers)
    try:
        with _open(http, max(LEAST_TIMEOUT, deadline - time.monotonic())) as response:
            status, received, text = response.status, response.headers, _read(response, deadline)
    # `ValueError`: http.client cannot send an address that is not ASCII.
    except (OSError, HTTPException, ValueError) as error:
        raise RetryableError(f"The connection failed ({error}).", reached=False) from None
    if status >= 300:
        named = {name.lower(): value for name, value in received.items()}
        raise response_error(status, text, named, dialect, body)
    dialect.succeeded(body)
    return AnswerReader(dialect.tell, began=bool(request.prefix)).whole(text)


def _open(request: Request, timeout: float) -> Any:
    # The timeout is that of one read from the socket. Headers that drip in byte by byte escape the
    # deadline: where that matters, the caller limits the time itself, as the runner of checks does.
    try:
        return _opener.open(request, timeout=timeout)
    except HTTPError as error:
        return error  # it is the response, whose body says what was wrong


def _read(response: Any, deadline: float) -> str:
    """Read a body. The socket's timeout starts again with every packet, so the clock is read too.

    Raises `RetryableError` for a body that is too long or takes too long.
    """
    content = b""
    while part := response.read1(LONGEST_BODY):
        content += part
        if len(content) > LONGEST_BODY:
            raise RetryableError(f"It sent more than {LONGEST_BODY} bytes.")
        if time.monotonic() > deadline:
            raise RetryableError("Its answer took too long.")
    return content.decode("utf-8-sig", "replace")
