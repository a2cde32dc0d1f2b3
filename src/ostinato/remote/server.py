"""Which server writes, and how it is talked to. Knows no lane and sends nothing."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any
from urllib.parse import urlsplit

from ostinato.errors import InputError

APIS = ("chat", "completions")
PREFILLS = ("no", "last", "continue_final_message", "prefix")
TEMPLATES = ("no", "chatml")


def is_server(name: object) -> bool:
    """Tell whether a model's name is that of a server: `http://HOST:PORT/v1#MODEL`."""
    return isinstance(name, str) and name.startswith(("http://", "https://"))


@dataclass(frozen=True, kw_only=True)
class Server:
    """An OpenAI-compatible server and one of its models.

    `url` is the base of its API, as `http://127.0.0.1:8000/v1`. `api` says where prompts are
    sent: `chat` takes messages, `completions` a text, in which `template` "chatml" writes
    messages. `stream` takes the answer piece by piece. `prefill` is how a chat server is told to
    go on with a begun answer: "no" (it cannot), "last" (the last message is the assistant's:
    llama.cpp), "continue_final_message" (vLLM, ostinato serve) or "prefix" (a mark on that message:
    Mistral, DeepSeek). `key_env` names the environment variable that holds the key. `logprobs`
    asks for log-probabilities, `top_logprobs` for those of so many of the likeliest tokens at each
    place, by which `backtrack` finds where a value that is missing was likely; `seeds` sends seeds,
    `usage` asks a stream for its token counts; `extensions` sends `top_k`, `min_p` and
    `repetition_penalty`, which OpenAI's own API refuses. Prices are per million tokens. `timeout`
    is in seconds without a sign of life, `retries` how often in a row a request may fail,
    `patience` the longest wait in seconds that a server may ask for.
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
        object.__setattr__(self, "url", self.url.rstrip("/"))
        _check_url(self.url)
        _require(bool(self.model), "model", "the name of one of its models", self.model)
        _require(self.api in APIS, "api", f"one of {', '.join(APIS)}", self.api)
        _require(self.prefill in PREFILLS, "prefill", f"one of {', '.join(PREFILLS)}", self.prefill)
        _require(
            self.template in TEMPLATES, "template", f"one of {', '.join(TEMPLATES)}", self.template
        )
        chat = self.api == "chat"
        _require(chat or self.prefill == "no", "prefill", '"no" with completions', self.prefill)
        _require(not chat or self.template == "no", "template", '"no" with chat', self.template)
        for name in ("price_in", "price_out"):
            _require(getattr(self, name) >= 0, name, "0 or more", getattr(self, name))
        for name in ("timeout", "patience"):
            _require(getattr(self, name) > 0, name, "above 0", getattr(self, name))
        for name in ("retries", "top_logprobs"):
            _require(getattr(self, name) >= 0, name, "0 or more", getattr(self, name))

    @classmethod
    def of(cls, name: str, **settings: Any) -> Server:
        """Make it of `URL#MODEL` and settings. Raises `InputError` for what is wrong."""
        url, _, model = name.partition("#")
        if not is_server(name) or not model:
            raise InputError(
                f"A server must be named by its URL and model, got {name!r}. Write for example "
                "http://127.0.0.1:8000/v1#MODEL."
            )
        return cls(url=url, model=model, **settings)

    @property
    def name(self) -> str:
        """What it is called: `URL#MODEL`."""
        return f"{self.url}#{self.model}"

    @property
    def continues(self) -> bool:
        """Whether it can go on with an answer that was begun."""
        return self.api == "completions" or self.prefill != "no"

    @property
    def settings(self) -> dict[str, Any]:
        """What differs from the defaults, besides URL and model."""
        named = ("url", "model")
        kept = [spec for spec in fields(self) if spec.name not in named]
        return {
            spec.name: getattr(self, spec.name)
            for spec in kept
            if getattr(self, spec.name) != spec.default
        }

    def key(self, environment: Mapping[str, str] = os.environ) -> str:
        """Return the key, empty where none is needed. Raises `InputError` where it is not set."""
        if not self.key_env:
            return ""
        key = environment.get(self.key_env, "").strip()
        if not key:
            raise InputError(
                f"The environment variable {self.key_env} must hold the key of {self.url}, got "
                f"nothing. Set it: export {self.key_env}=…"
            )
        if not (key.isascii() and key.isprintable()):
            raise InputError(
                f"The environment variable {self.key_env} must hold the key of {self.url} in one "
                "line of ASCII, got other characters. Set it again."
            )
        return key

    @property
    def priced(self) -> bool:
        """Whether its tokens have a price."""
        return bool(self.price_in or self.price_out)

    def cost(self, prompt: float, tokens: float) -> float:
        """Return the price of a prompt's and an answer's tokens."""
        return (prompt * self.price_in + tokens * self.price_out) / 1_000_000

    def at(self, name: str) -> Server:
        """Return the same settings for another `URL#MODEL`."""
        other = Server.of(name)
        return replace(self, url=other.url, model=other.model)


def _check_url(url: str) -> None:
    parts = urlsplit(url)
    right = parts.scheme in ("http", "https") and bool(parts.hostname)
    _require(right, "url", "an http or https address", url)
    if parts.username or parts.password or parts.query or parts.fragment:
        raise InputError(
            "A server's url must hold no user, key or query, which would be journaled, got one "
            f"with them for {parts.hostname}. Put the key in an environment variable and name "
            "that: key_env."
        )


def _require(right: bool, name: str, expected: str, value: object) -> None:
    if not right:
        raise InputError(f"A server's {name} must be {expected}, got {value!r}. Change it.")
