"""One question to an OpenAI-compatible server: how likely it says yes. Standard library only."""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Mapping
from http.client import HTTPException
from typing import Any, NamedTuple
from urllib.error import HTTPError
from urllib.request import HTTPRedirectHandler, Request, build_opener

from ostinato.errors import InputError
from ostinato.remote import (
    Response,
    RetryableError,
    Server,
    StreamChunk,
    Usage,
    error_of,
    piece,
    wait,
)

TRIES = 3
SECONDS = 8.0  # for all tries together; a check has 10 in all
LARGEST = 1 << 20  # bytes of an answer
ALTERNATIVES = 10


class Opinion(NamedTuple):
    """A judge's answer: the probability of yes, of yes and no, the tokens that it took, their
    price."""

    yes: float
    tokens: int
    cost: float = 0.0


def ask_server(server: Server, question: str) -> Opinion:
    """Return what a server says, by the log-probabilities of the first token of its answer.

    Where the server tells none, it is 1 or 0 by the first word. Raises `InputError` where the
    answer is neither, and for a server that cannot be asked.
    """
    body = {
        "model": server.model,
        "messages": [{"role": "user", "content": question}],
        "max_tokens": 4,
        "temperature": 0,
    }
    until = time.monotonic() + SECONDS
    try:
        wanted = body | {"logprobs": True, "top_logprobs": ALTERNATIVES}
        answer = _sent(server, wanted, until)
    except _Refused:  # a server that knows no log-probabilities
        answer = _sent(server, body, until)
    told = _usage(answer, question)
    cost = server.cost(told.prompt, told.tokens)
    return Opinion(_yes(answer), told.prompt + told.tokens, cost)


class _Refused(InputError):
    """The server does not take such a request."""


def _yes(answer: StreamChunk) -> float:
    word = re.search(r"\w+", answer.text)
    return share_of_yes(answer.likeliest or {word[0] if word else "": 0.0})


def _usage(answer: StreamChunk, question: str) -> Usage:
    """Return the tokens that were read and written; where not told, a quarter of the bytes."""
    return answer.usage or Usage(prompt=len(question.encode()) // 4, tokens=1)


class _NoRedirects(HTTPRedirectHandler):
    """A key is for the server that was named, and no other."""

    def redirect_request(self, *_: Any) -> None:
        """Follow none: the answer is an error then."""


_opener = build_opener(_NoRedirects)


def _sent(server: Server, body: Mapping[str, Any], until: float) -> StreamChunk:
    """Return the answer to a request; what may pass is tried again while there is time."""
    key = server.key()
    for failures in range(1, TRIES + 1):
        try:
            return _once(server, key, body, until)
        except HTTPError as error:
            met: Exception = error_of(Response(error.code, str(error.reason)))
            refused, got = error.code in (400, 422), f"{error.code} ({error.reason})"
            mend = "Look at its URL, its model and the key."
            error.close()
        except (OSError, ValueError, HTTPException) as error:
            refused, got, mend = False, str(error), "Is it running?"
            met = RetryableError(got, reached=False)
        except RetryableError as fault:
            refused, got, met, mend = False, f"this: {fault}", fault, "Look at its URL."
        pause = wait(failures, 0.5)  # no draw: only one asks
        passes = isinstance(met, RetryableError) and failures < TRIES
        if not passes or time.monotonic() + pause >= until:
            kind = _Refused if refused else InputError
            raise kind(f"A judge's server must answer, got {got} from {server.url}. {mend}")
        time.sleep(pause)
    raise AssertionError("unreachable")


def _once(server: Server, key: str, body: Mapping[str, Any], until: float) -> StreamChunk:
    headers = {"Content-Type": "application/json"}
    if key:
        headers["Authorization"] = f"Bearer {key}"
    where = f"{server.url.rstrip('/')}/chat/completions"
    request = Request(where, json.dumps(body).encode(), headers)
    content = b""
    with _opener.open(request, timeout=max(0.1, until - time.monotonic())) as response:
        while part := response.read1(LARGEST):
            content += part
            if len(content) > LARGEST or time.monotonic() > until:
                raise ValueError("an answer that is too long or takes too long")
    return piece(server, content.decode("utf-8", "replace"))


def share_of_yes(logprobs: Mapping[str, float]) -> float:
    """Return P(yes) / (P(yes) + P(no)) of answers' first tokens with their log-probabilities.

    Raises `InputError` where neither is among them.
    """
    total = {1: 0.0, 0: 0.0}
    for text, logprob in logprobs.items():
        meaning = _meaning(text)
        if meaning is not None:
            total[meaning] += math.exp(logprob)
    if sum(total.values()) == 0:
        raise InputError(
            "A judge must answer with yes or no, got neither among its likeliest first tokens. Ask "
            'it so: "… Answer with yes or no."'
        )
    return total[1] / (total[1] + total[0])


def _meaning(text: str) -> int | None:
    return {"yes": 1, "no": 0}.get(text.strip().casefold())
