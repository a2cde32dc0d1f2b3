"""Which server to use, and how to talk to it. Knows no lane and sends nothing."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from importlib.util import find_spec
from typing import Any
from urllib.parse import urlsplit

from ostinato.arguments import (
    require,
    require_above,
    require_at_least,
    require_choice,
    require_types,
)
from ostinato.errors import InputError, MissingExtra

APIS = ("chat", "completions")
PREFILLS = ("no", "last", "continue_final_message", "prefix")
TEMPLATES = ("no", "chatml")


def is_server(name: object) -> bool:
    """Return whether a model's name is a server's: `http://HOST:PORT/v1#MODEL`."""
    return isinstance(name, str) and name.startswith(("http://", "https://"))


@dataclass(frozen=True, kw_only=True)
class Server:
    """An OpenAI-compatible server and one of its models.

    url: Base of the API, as `http://127.0.0.1:8000/v1`.
    api: "chat" sends messages. "completions" sends a text, with messages in the `template`.
    stream: Receive the answer piece by piece.
    prefill: How a chat server continues an answer. "no": it cannot. "last": the last message is
        the assistant's (llama.cpp). "continue_final_message": vLLM and `ostinato serve`. "prefix":
        that message carries a mark (Mistral, DeepSeek).
    template: "chatml", or "no" where a prompt is one text.
    key_env: Name of the environment variable that holds the key.
    logprobs: Request log-probabilities.
    top_logprobs: How many of the most likely tokens to request at each position. `backtrack` finds
        there where a missing value was likely.
    seeds: Send seeds.
    usage: Request the token counts of a stream.
    extensions: Send `top_k`, `min_p` and `repetition_penalty`, which OpenAI's own API refuses.
    price_in, price_out: Prices per million tokens, read and written.
    timeout: Seconds without a byte after which a request is repeated.
    retries: How often in a row a request may fail before it is given up.
    patience: Longest wait in seconds that the server may demand.
    """

    url: str
    model: str
    api: str = "chat"
    stream: bool = True
    prefill: str = "no"
    template: str = "no"
    key_env: str = ""
    logprobs: bool = False
    top_logprobs: int = 0
    seeds: bool = True
    usage: bool = True
    extensions: bool = False
    price_in: float = 0.0
    price_out: float = 0.0
    timeout: float = 60.0
    retries: int = 6
    patience: float = 600.0

    def __post_init__(self) -> None:
        require_types(self)
        object.__setattr__(self, "url", self.url.rstrip("/"))
        _check_url(self.url)
        require(bool(self.model), "model", "the name of one of its models", self.model)
        for name, choices in (("api", APIS), ("prefill", PREFILLS), ("template", TEMPLATES)):
            require_choice(name, getattr(self, name), choices)
        chat = self.api == "chat"
        require(chat or self.prefill == "no", "prefill", '"no" with completions', self.prefill)
        require(not chat or self.template == "no", "template", '"no" with chat', self.template)
        require_at_least(0, price_in=self.price_in, price_out=self.price_out)
        require_at_least(0, retries=self.retries, top_logprobs=self.top_logprobs)
        require_above(0, timeout=self.timeout, patience=self.patience)

    @classmethod
    def of(cls, name: str, **settings: Any) -> Server:
        """Build it from `URL#MODEL` and the other fields. Raises `InputError` for a wrong one."""
        url, _, model = name.partition("#")
        if not is_server(name) or not model:
            raise InputError(
                f"A server must be named by its URL and model, got {name!r}. Write for example "
                "http://127.0.0.1:8000/v1#MODEL."
            )
        return cls(url=url, model=model, **settings)

    @property
    def name(self) -> str:
        """`URL#MODEL`."""
        return f"{self.url}#{self.model}"

    @property
    def continues(self) -> bool:
        """Whether it can continue an answer from its prefix."""
        return self.api == "completions" or self.prefill != "no"

    @property
    def settings(self) -> dict[str, Any]:
        """The fields that differ from their defaults, without URL and model."""
        named = ("url", "model")
        kept = [spec for spec in fields(self) if spec.name not in named]
        return {
            spec.name: getattr(self, spec.name)
            for spec in kept
            if getattr(self, spec.name) != spec.default
        }

    def key(self, environment: Mapping[str, str] = os.environ) -> str:
        """Return the key, empty where none is needed.

        Raises `InputError` where the variable is not set, or holds more than one line of ASCII.
        The message never shows the value.
        """
        if not self.key_env:
            return ""
        key = environment.get(self.key_env, "").strip()
        if not key:
            raise InputError(
                f"The environment variable {self.key_env} must hold the key of {self.url}, got "
                f"nothing. Set it: export {self.key_env}=…"
            )
        # http.client would raise with the whole header in its message, key and all.
        if not (key.isascii() and key.isprintable()):
            raise InputError(
                f"The environment variable {self.key_env} must hold the key of {self.url} in one "
                "line of ASCII, got other characters. Set it again."
            )
        return key

    def require_available(self) -> None:
        """Raise `InputError` where the client's library or the key is missing. Sends nothing."""
        if find_spec("httpx2") is None:
            raise MissingExtra("A model on a server", "server")
        self.key()

    @property
    def priced(self) -> bool:
        """Whether its tokens have a price."""
        return bool(self.price_in or self.price_out)

    def cost(self, prompt: float, tokens: float) -> float:
        """Return the price of tokens read (`prompt`) and written (`tokens`)."""
        return (prompt * self.price_in + tokens * self.price_out) / 1_000_000

    def at(self, name: str) -> Server:
        """Return the same settings for another server or model, named `URL#MODEL`."""
        other = Server.of(name)
        return replace(self, url=other.url, model=other.model)


def _check_url(url: str) -> None:
    parts = urlsplit(url)
    valid = parts.scheme in ("http", "https") and bool(parts.hostname)
    require(valid, "url", "an http or https address", url)
    # The URL is journaled, so it may hold no secret; nor may this message repeat one.
    if parts.username or parts.password or parts.query or parts.fragment:
        error = InputError(
            "url must hold no user, key or query, which would be journaled, got one with them for "
            f"{parts.hostname}. Put the key in an environment variable and name that: key_env."
        )
        error.key = "url"
        raise error
