"""One question to an OpenAI-compatible server: how likely it says yes. Standard library only."""

from __future__ import annotations

import json
import math
import os
import re
import time
from collections.abc import Mapping
from http.client import HTTPException
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import HTTPRedirectHandler, Request, build_opener

from ostinato.errors import InputError

TRIES, WAIT = 3, 0.5  # how often a request may fail, and the seconds before the second one
SECONDS = 8.0  # for all tries together; a check has 10 in all
LARGEST = 1 << 20  # bytes of an answer
ALTERNATIVES = 10
PASSING = frozenset({408, 409, 425, 429})
"""Statuses that may pass, besides those from 500 on."""


def is_server(name: str) -> bool:
    """Tell whether a model's name is that of a server: `http://HOST:PORT/v1#MODEL`."""
    return name.startswith(("http://", "https://"))


def ask_server(name: str, question: str, key_env: str = "") -> float:
    """Return the probability of yes, of yes and no, by the log-probabilities of the first token.

    Where the server tells none, it is 1 or 0 by the first word. Raises `InputError` where the
    answer is neither, and for a server that cannot be asked.
    """
    url, _, model = name.partition("#")
    body = {
        "model": model,
        "messages": [{"role": "user", "content": question}],
        "max_tokens": 4,
        "temperature": 0,
    }
    where, key = f"{url.rstrip('/')}/chat/completions", _key(key_env)
    until = time.monotonic() + SECONDS
    try:
        wanted = body | {"logprobs": True, "top_logprobs": ALTERNATIVES}
        answer = _sent(where, wanted, key, until)
    except _Refused:  # a server that knows no log-probabilities
        answer = _sent(where, body, key, until)
    return _yes(answer)


class _Refused(InputError):
    """The server does not take such a request."""


def _yes(answer: Any) -> float:
    try:
        choice = answer["choices"][0]
        content = (choice.get("logprobs") or {}).get("content") or [{}]
        likely = content[0].get("top_logprobs") or []
        if likely:
            told: dict[str, float] = {}
            for one in likely:  # several tokens may be spelt alike
                told.setdefault(str(one["token"]), float(one["logprob"]))
            return share_of_yes(told)
        word = re.search(r"\w+", str(choice["message"]["content"]))
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise InputError(
            f"A judge's server must answer as the API says, got an answer without a choice "
            f"({type(error).__name__}). Look at its URL."
        ) from None
    return share_of_yes({word[0] if word else "": 0.0})


class _NoRedirects(HTTPRedirectHandler):
    """A key is for the server that was named, and no other."""

    def redirect_request(self, *_: Any) -> None:
        """Follow none: the answer is an error then."""


_opener = build_opener(_NoRedirects)


def _sent(url: str, body: Mapping[str, Any], key: str, until: float) -> Any:
    """Return the answer to a request; what may pass is tried again while there is time."""
    told = re.sub(r"//[^/]*@", "//", url)  # without a name and password
    for attempt in range(1, TRIES + 1):
        last = attempt == TRIES or time.monotonic() + WAIT * attempt >= until
        try:
            return _once(url, body, key, until)
        except HTTPError as error:
            error.close()
            if last or not (error.code >= 500 or error.code in PASSING):
                kind = _Refused if error.code in (400, 422) else InputError
                raise kind(
                    f"A judge's server must answer, got {error.code} ({error.reason}) from {told}. "
                    "Look at its URL, its model and the key."
                ) from None
        except (URLError, OSError, ValueError, HTTPException) as error:
            if last:
                raise InputError(
                    f"A judge's server must answer, got {error} from {told}. Is it running?"
                ) from None
        time.sleep(WAIT * attempt)
    raise AssertionError("unreachable")


def _once(url: str, body: Mapping[str, Any], key: str, until: float) -> Any:
    headers = {"Content-Type": "application/json"}
    if key:
        headers["Authorization"] = f"Bearer {key}"
    request = Request(url, json.dumps(body).encode(), headers)
    content = b""
    with _opener.open(request, timeout=max(0.1, until - time.monotonic())) as response:
        while part := response.read1(LARGEST):
            content += part
            if len(content) > LARGEST or time.monotonic() > until:
                raise ValueError("an answer that is too long")
    return json.loads(content)


def _key(key_env: str) -> str:
    if not key_env:
        return ""
    key = os.environ.get(key_env, "").strip()
    if not key:
        raise InputError(
            f"The environment variable {key_env} must hold the judge's key, got nothing. Set it: "
            f"export {key_env}=…"
        )
    if not (key.isascii() and key.isprintable()):
        raise InputError(
            f"The environment variable {key_env} must hold the judge's key in one line of ASCII, "
            "got other characters. Set it again."
        )
    return key


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
