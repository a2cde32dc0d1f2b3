"""The OpenAI API as values: request bodies, and parsed responses. Sends nothing."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ostinato.errors import ItemError
from ostinato.remote.retry import RetryableError, ServerError, error_of
from ostinato.remote.server import Server

Message = Mapping[str, str]
PromptInput = str | Sequence[Message]

LONGEST_EXCERPT = 80  # characters of a response that is not an answer
CONTROL_TOKEN = re.compile(r"<\|[^|<>\s]{1,40}\|>")
EXTENSIONS = ("top_k", "min_p", "repetition_penalty")


@dataclass(frozen=True, slots=True, kw_only=True)
class CompletionRequest:
    """A prompt, the answer so far and how to sample the rest.

    `max_tokens` limits what comes after `prefix`, `total_tokens` the whole answer: a server that
    cannot continue a prefix starts again and needs the latter.
    """

    prompt: PromptInput
    max_tokens: int
    total_tokens: int = 0
    prefix: str = ""
    seed: int = 0
    sampling: Mapping[str, float] = field(default_factory=dict)

    @property
    def bytes(self) -> int:
        """Upper bound of the prompt's tokens: its UTF-8 bytes, and 16 for each message.

        No tokenizer makes more tokens than bytes; the 16 stand for the chat template.
        """
        if isinstance(self.prompt, str):
            return len(_utf8(self.prompt)) + len(_utf8(self.prefix)) + 16
        texts = [self.prefix, *(text for message in self.prompt for text in message.values())]
        return sum(len(_utf8(text)) for text in texts) + 16 * (1 + len(self.prompt))


def _utf8(text: str) -> bytes:
    # JSON can spell half a surrogate pair, so an item's text can hold one: it must not raise.
    return text.encode("utf-8", "surrogatepass")


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """The tokens of one request as the server counts them: read (`prompt`) and written."""

    prompt: int
    tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamChunk:
    """A piece of an answer, or a whole one.

    `tokens` is their number where log-probabilities show it, else 1 for any text. `logprob` is the
    sum of its tokens' log-probabilities, `top_logprobs` the most likely tokens at the position of
    its first one. `finish` is the reason why it is the last one. `usage` covers its own request
    only. `repeated` counts tokens received a second time since the piece before, `wasted_prompts`
    failed requests that had read the prompt.
    """

    text: str = ""
    tokens: int = 0
    repeated: int = 0
    wasted_prompts: int = 0
    logprob: float | None = None
    top_logprobs: Mapping[str, float] = field(default_factory=dict)
    finish: str = ""
    usage: Usage | None = None


def endpoint(server: Server) -> str:
    """Return the address to which requests are sent."""
    return server.url + ("/chat/completions" if server.api == "chat" else "/completions")


def request_body(server: Server, request: CompletionRequest) -> dict[str, Any]:
    """Return a request's JSON. Raises `ItemError` for messages that a text cannot hold safely."""
    body: dict[str, Any] = {"model": server.model, "max_tokens": request.max_tokens}
    for name, value in request.sampling.items():
        if name not in EXTENSIONS or server.extensions:
            body[name] = value
    if server.seeds:
        body["seed"] = request.seed
    if server.stream:
        body["stream"] = True
        if server.usage:
            body["stream_options"] = {"include_usage": True}
    wants_logprobs = server.logprobs or server.top_logprobs
    if server.api == "completions":
        body["prompt"] = prompt_text(server, request.prompt) + request.prefix
        if wants_logprobs:
            body["logprobs"] = server.top_logprobs
    else:
        body |= _messages(server, request)
        if wants_logprobs:  # llama-cpp-python sends none without top_logprobs, even if it is 0
            body |= {"logprobs": True, "top_logprobs": server.top_logprobs}
    return body


def prompt_text(server: Server, prompt: PromptInput) -> str:
    """Return a prompt as one text, with messages in the server's template.

    Without a template, a single user message is that text. Raises `ItemError` for a conversation
    without a template, and for a message that spells a control token.
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
        found = CONTROL_TOKEN.search(message["content"])
        if found:  # a server tokenizes it as the control token: the message could forge a turn
            raise ItemError(
                f"A message must not spell a control token, got {found[0]!r}. Remove it, or use "
                'api = "chat".'
            )
    turns = (f"<|im_start|>{m['role']}\n{m['content']}<|im_end|>\n" for m in messages)
    return "".join(turns) + "<|im_start|>assistant\n"


def _messages(server: Server, request: CompletionRequest) -> dict[str, Any]:
    prompt = request.prompt
    messages: list[dict[str, Any]] = (
        [{"role": "user", "content": prompt}]
        if isinstance(prompt, str)
        else list(map(dict, prompt))
    )
    if not request.prefix:
        return {"messages": messages}
    prefix: dict[str, Any] = {"role": "assistant", "content": request.prefix}
    if server.prefill == "prefix":
        prefix["prefix"] = True
    body: dict[str, Any] = {"messages": [*messages, prefix]}
    if server.prefill == "continue_final_message":
        # vLLM refuses both at once, and the second is on by default.
        body |= {"continue_final_message": True, "add_generation_prompt": False}
    return body


# Responses --------------------------------------------------------------------------------------


def parse_chunk(server: Server, text: str) -> StreamChunk:
    """Parse an event of a stream, or a whole answer.

    Raises `RetryableError` for an error object and for anything that is not of the API.
    """
    try:
        value = json.loads(text)
        if value.get("error"):
            # Servers report a failure after the first token here, as the status is sent by then.
            raise RetryableError(f"It answered with an error: {_message(value['error'])}")
        choices = value.get("choices") or []
        usage = _usage(value.get("usage"))
        # The last event of a stream may hold the usage and no choice.
        return _choice(server, choices[0], usage) if choices else StreamChunk(usage=usage)
    except (ValueError, AttributeError, TypeError, LookupError) as error:
        excerpt = text[:LONGEST_EXCERPT] + "…" * (len(text) > LONGEST_EXCERPT)
        raise RetryableError(f"It sent something that is no answer: {excerpt!r}.") from error


def join_characters(left: StreamChunk, chunk: StreamChunk) -> tuple[StreamChunk, StreamChunk]:
    """Return a piece after the rest of the one before, and the rest that it leaves.

    JSON may spell a character as two surrogates, and a server may send them in two pieces. A
    surrogate that stays alone becomes U+FFFD.
    """
    text = left.text + chunk.text
    if text.isascii() and not left.tokens:
        return chunk, StreamChunk()
    half = text[-1:] if "\ud800" <= text[-1:] <= "\udbff" and not chunk.finish else ""
    whole = text.removesuffix(half).encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    logprobs = [one.logprob for one in (left, chunk) if one.logprob is not None]
    joined = replace(
        chunk,
        text=whole,
        tokens=left.tokens + chunk.tokens,
        logprob=sum(logprobs) if logprobs else None,
        top_logprobs=left.top_logprobs or chunk.top_logprobs,
    )
    if half and not whole:
        return replace(chunk, text="", tokens=0), replace(joined, text=half)
    return joined, StreamChunk(text=half)


def _choice(server: Server, choice: Mapping[str, Any], usage: Usage | None) -> StreamChunk:
    if server.api == "completions":
        text = choice.get("text")
    else:
        text = (choice.get("delta") or choice.get("message") or {}).get("content")
    text = text or ""
    if not isinstance(text, str):
        raise TypeError
    logprobs = _logprobs(choice.get("logprobs"))
    return StreamChunk(
        text=text,
        tokens=len(logprobs) if logprobs else int(bool(text)),
        logprob=sum(logprobs) if logprobs else None,
        top_logprobs=_top_logprobs(choice.get("logprobs")),
        finish=str(choice.get("finish_reason") or ""),
        usage=usage,
    )


def _logprobs(value: Any) -> list[float]:
    """Return each token's log-probability from either API's object; empty where there are none."""
    if not isinstance(value, Mapping):
        return []
    if value.get("content"):
        return [float(token["logprob"]) for token in value["content"]]
    return [float(one) for one in value.get("token_logprobs") or [] if one is not None]


def _top_logprobs(value: Any) -> dict[str, float]:
    """Return the most likely tokens at the first one's position, from either API's object."""
    if not isinstance(value, Mapping):
        return {}
    if not value.get("content"):
        top = (value.get("top_logprobs") or [None])[0]
        return {str(text): float(one) for text, one in (top or {}).items()}
    found: dict[str, float] = {}
    for one in value["content"][0].get("top_logprobs") or ():
        # Different tokens may have the same text; the list is sorted, so the first is the best.
        found.setdefault(str(one["token"]), float(one["logprob"]))
    return found


def _usage(value: Any) -> Usage | None:
    if not isinstance(value, Mapping):
        return None
    prompt, tokens = value.get("prompt_tokens"), value.get("completion_tokens")
    if not isinstance(prompt, int) or not isinstance(tokens, int):
        return None
    return Usage(prompt=prompt, tokens=tokens)


def response_error(
    status: int, text: str, *, retry_after: str = "", location: str = ""
) -> Exception:
    """Return what a status of 300 or more means, with the body's text and two headers."""
    if status < 400:  # never followed: the key is for the server that was named, and no other
        return ServerError(f"It answered {status}: it redirects to {location or 'nowhere'}.")
    return error_of(status, *_message_and_code(text), retry_after)


def _message_and_code(text: str) -> tuple[str, str]:
    """Return the message and code of an error's body; the whole body where it is not the API's."""
    try:
        value = json.loads(text)
        error = value["error"] if "error" in value else value["detail"]
    except (ValueError, LookupError, TypeError):
        return text.strip(), ""
    code = error.get("code") if isinstance(error, Mapping) else ""
    return _message(error), str(code or "")


def _message(error: Any) -> str:
    """Return the message of OpenAI's `error`, or of FastAPI's `detail`, which may be a list."""
    if isinstance(error, list):
        return "; ".join(map(_message, error))
    if not isinstance(error, Mapping):
        return str(error)
    where = ".".join(map(str, error.get("loc", ())))
    message = str(error.get("message", error.get("msg")))
    return f"{where}: {message}" if where else message
