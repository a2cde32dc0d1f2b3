"""The OpenAI API as values: requests and their bodies, and the pieces of answers. Sends nothing."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from ostinato.errors import ItemError
from ostinato.remote.server import Server

Message = Mapping[str, str]
PromptInput = str | Sequence[Message]

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


class Finish(StrEnum):
    """Why an answer ended."""

    STOP = "stop"
    LENGTH = "length"
    CONTENT_FILTER = "content_filter"
    TOOL_CALLS = "tool_calls"  # it called tools, which nobody has offered
    REFUSAL = "refusal"  # the model refused, in a field of its own
    NO_TEXT = "no_text"  # it holds something else, such as reasoning that took all tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamChunk:
    """A piece of an answer, or a whole one.

    `tokens` is their number where log-probabilities show it, else 1 for any text. `logprob` is the
    sum of its tokens' log-probabilities, `top_logprobs` the most likely tokens at the position of
    its first one. `finish` is the reason why it is the last one, and `detail` what came instead of
    a usable text. `usage` covers its own request only. `repeated` counts tokens received a second
    time since the piece before, `wasted_prompts` failed requests that had read the prompt.
    """

    text: str = ""
    tokens: int = 0
    repeated: int = 0
    wasted_prompts: int = 0
    logprob: float | None = None
    top_logprobs: Mapping[str, float] = field(default_factory=dict)
    finish: Finish | None = None
    detail: str = ""
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
