"""The OpenAI API as values: what a request's body says, and what comes back. Sends nothing."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ostinato.errors import ItemError
from ostinato.remote.retry import RetryableError
from ostinato.remote.server import Server

Message = Mapping[str, str]
PromptInput = str | Sequence[Message]

TOLD = 80  # characters of what is no answer
CONTROL = re.compile(r"<\|[^|<>\s]{1,40}\|>")
EXTENSIONS = ("top_k", "min_p", "repetition_penalty")


@dataclass(frozen=True, slots=True, kw_only=True)
class CompletionRequest:
    """One request: a prompt, the answer so far (to be gone on with), and how it is drawn.

    `max_tokens` is what may come beyond `begun`, `whole` what the whole answer may have.
    """

    prompt: PromptInput
    max_tokens: int
    whole: int = 0
    begun: str = ""
    seed: int = 0
    sampling: Mapping[str, float] = field(default_factory=dict)

    @property
    def bytes(self) -> int:
        """How many bytes are sent as text; no tokenizer makes more tokens of them, some overhead
        for each message aside."""
        if isinstance(self.prompt, str):
            return len(_utf8(self.prompt)) + len(_utf8(self.begun)) + 16
        texts = [self.begun, *(text for message in self.prompt for text in message.values())]
        return sum(len(_utf8(text)) for text in texts) + 16 * (1 + len(self.prompt))


def _utf8(text: str) -> bytes:
    """Return a text's bytes; half a character, which JSON can spell, is sent as it is."""
    return text.encode("utf-8", "surrogatepass")


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What a server says that a request took, in tokens."""

    prompt: int
    tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamChunk:
    """A piece of an answer. `tokens` is their number where it is told, else 1 for any text.

    `logprob` adds up its tokens' natural logarithms, `likeliest` holds those of the tokens that
    were likeliest in the place of its first one, by their texts; `finish` is why it is the last
    one; `again` counts tokens before it that had been received once before, `prompts` requests
    before its own that read the prompt in vain. `usage` is that of its own request.
    """

    text: str = ""
    tokens: int = 0
    again: int = 0
    prompts: int = 0
    logprob: float | None = None
    likeliest: Mapping[str, float] = field(default_factory=dict)
    finish: str = ""
    usage: Usage | None = None


def path(server: Server) -> str:
    """Return where requests are sent."""
    return "/chat/completions" if server.api == "chat" else "/completions"


def body(server: Server, ask: CompletionRequest) -> dict[str, Any]:
    """Return a request's JSON. Raises `ItemError` for messages that a text cannot hold safely."""
    sent: dict[str, Any] = {"model": server.model, "max_tokens": ask.max_tokens}
    for name, value in ask.sampling.items():
        if name not in EXTENSIONS or server.extensions:
            sent[name] = value
    if server.seeds:
        sent["seed"] = ask.seed
    if server.stream:
        sent["stream"] = True
        if server.usage:
            sent["stream_options"] = {"include_usage": True}
    told = server.logprobs or server.top_logprobs
    if server.api == "completions":
        sent["prompt"] = as_text(server, ask.prompt) + ask.begun
        if told:
            sent["logprobs"] = server.top_logprobs
    else:
        sent |= _messages(server, ask)
        if told:  # llama-cpp-python tells none without a number, be it 0
            sent |= {"logprobs": True, "top_logprobs": server.top_logprobs}
    return sent


def as_text(server: Server, prompt: PromptInput) -> str:
    """Return a prompt as one text, messages by the server's template.

    Without a template a single message of a user is that text.
    """
    messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
    if server.template == "no" and len(messages) == 1 and messages[0]["role"] == "user":
        return messages[0]["content"]
    if server.template == "no":
        raise ItemError(
            "The prompt must be one text for a server's completions, got a conversation. Use "
            'api = "chat", or name the template that the model was tuned with: template = "chatml".'
        )
    for message in messages:
        found = CONTROL.search(message["content"])
        if found:  # the server would read it as a token of its own
            raise ItemError(
                f"A message must not spell a control token, got {found[0]!r}. Take it out, or use "
                'api = "chat".'
            )
    turns = (f"<|im_start|>{m['role']}\n{m['content']}<|im_end|>\n" for m in messages)
    return "".join(turns) + "<|im_start|>assistant\n"


def _messages(server: Server, ask: CompletionRequest) -> dict[str, Any]:
    prompt = ask.prompt
    messages: list[dict[str, Any]] = (
        [{"role": "user", "content": prompt}]
        if isinstance(prompt, str)
        else list(map(dict, prompt))
    )
    if not ask.begun:
        return {"messages": messages}
    begun: dict[str, Any] = {"role": "assistant", "content": ask.begun}
    if server.prefill == "prefix":
        begun["prefix"] = True
    sent: dict[str, Any] = {"messages": [*messages, begun]}
    if server.prefill == "continue_final_message":
        sent |= {"continue_final_message": True, "add_generation_prompt": False}
    return sent


# What comes back --------------------------------------------------------------------------------


def piece(server: Server, text: str) -> StreamChunk:
    """Read an event of a stream, or a whole answer. Raises `RetryableError` where it is none."""
    try:
        value = json.loads(text)
        if value.get("error"):
            raise RetryableError(f"It answered with an error: {_told(value['error'])}")
        choices = value.get("choices") or []
        usage = _usage(value.get("usage"))
        return _choice(server, choices[0], usage) if choices else StreamChunk(usage=usage)
    except (ValueError, AttributeError, TypeError, KeyError, LookupError) as error:
        begins = text[:TOLD] + "…" * (len(text) > TOLD)
        raise RetryableError(f"It sent what is no answer of the API: {begins!r}.") from error


def whole_characters(left: StreamChunk, given: StreamChunk) -> tuple[StreamChunk, StreamChunk]:
    """Return a piece behind what was left of the one before it, and what it leaves itself.

    A character that JSON spells as two surrogates may come in two pieces. Half of one that stays
    alone is written as U+FFFD.
    """
    text = left.text + given.text
    if text.isascii() and not left.tokens:
        return given, StreamChunk()
    half = text[-1:] if "\ud800" <= text[-1:] <= "\udbff" and not given.finish else ""
    spelled = text.removesuffix(half).encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    told = [one.logprob for one in (left, given) if one.logprob is not None]
    joined = replace(
        given,
        text=spelled,
        tokens=left.tokens + given.tokens,
        logprob=sum(told) if told else None,
        likeliest=left.likeliest or given.likeliest,
    )
    if half and not spelled:
        return replace(given, text="", tokens=0), replace(joined, text=half)
    return joined, StreamChunk(text=half)


def _choice(server: Server, choice: Mapping[str, Any], usage: Usage | None) -> StreamChunk:
    if server.api == "completions":
        text = choice.get("text")
    else:
        text = (choice.get("delta") or choice.get("message") or {}).get("content")
    text = text or ""
    if not isinstance(text, str):
        raise TypeError
    told = _logprobs(choice.get("logprobs"))
    count = len(told) if told else int(bool(text))
    return StreamChunk(
        text=text,
        tokens=count,
        logprob=sum(told) if told else None,
        likeliest=_likeliest(choice.get("logprobs")),
        finish=str(choice.get("finish_reason") or ""),
        usage=usage,
    )


def _logprobs(value: Any) -> list[float]:
    """Return the log-probability of each token, by either API's spelling; none where not told."""
    if not isinstance(value, Mapping):
        return []
    if value.get("content"):
        return [float(token["logprob"]) for token in value["content"]]
    told = value.get("token_logprobs") or []
    return [float(one) for one in told if one is not None]


def _likeliest(value: Any) -> dict[str, float]:
    """Return the likeliest tokens in the place of the first one, by either API's spelling."""
    if not isinstance(value, Mapping):
        return {}
    if not value.get("content"):
        best = (value.get("top_logprobs") or [None])[0]
        return {str(text): float(one) for text, one in (best or {}).items()}
    found: dict[str, float] = {}
    for one in value["content"][0].get("top_logprobs") or ():
        found.setdefault(str(one["token"]), float(one["logprob"]))  # some are spelled alike
    return found


def _usage(value: Any) -> Usage | None:
    if not isinstance(value, Mapping):
        return None
    prompt, tokens = value.get("prompt_tokens"), value.get("completion_tokens")
    if not isinstance(prompt, int) or not isinstance(tokens, int):
        return None
    return Usage(prompt=prompt, tokens=tokens)


def message_of(text: str) -> tuple[str, str]:
    """Return what an error's body says, and its code, as far as it is one of the API."""
    try:
        value = json.loads(text)
        error = value["error"] if "error" in value else value["detail"]
    except (ValueError, LookupError, TypeError):
        return text.strip(), ""
    code = error.get("code") if isinstance(error, Mapping) else ""
    return _told(error), str(code or "")


def _told(error: Any) -> str:
    """Return an error's message: OpenAI's `error`, or FastAPI's `detail`, which may be a list."""
    if isinstance(error, list):
        return "; ".join(map(_told, error))
    if not isinstance(error, Mapping):
        return str(error)
    where = ".".join(map(str, error.get("loc", ())))
    message = str(error.get("message", error.get("msg")))
    return f"{where}: {message}" if where else message
