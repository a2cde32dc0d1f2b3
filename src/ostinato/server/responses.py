"""Answers in the API's shapes: whole, and as the chunks of a stream. Knows no connection."""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from ostinato.journal import StopKind
from ostinato.loop import LaneResult
from ostinato.server.flow_scheduler import FlowRequest
from ostinato.server.requests import Delta, GenerationRequest, Token, TopLogprob

Served = GenerationRequest | FlowRequest
"""What an answer is made for."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What all parts of one answer share; `chat` selects one of the two APIs."""

    chat: bool
    model: str
    id: str = field(default_factory=lambda: secrets.token_hex(12))
    created: int = field(default_factory=lambda: int(time.time()))

    def whole(self, requests: Sequence[Served], results: Sequence[LaneResult]) -> dict[str, Any]:
        """Return the whole answer, with all of its choices."""
        pairs = enumerate(zip(requests, results, strict=True))
        choices = [self._choice(n, *pair) for n, pair in pairs]
        return {**self._head(chunk=False), "choices": choices, "usage": usage(requests, results)}

    def role_chunk(self, index: int) -> dict[str, Any]:
        """Return the first chunk of a chat's choice, which names the role."""
        delta = {"role": "assistant", "content": ""}
        choice: dict[str, Any] = {"index": index, "delta": delta, "finish_reason": None}
        return {**self._head(chunk=True), "choices": [choice]}

    def text_chunk(self, index: int, delta: Delta) -> dict[str, Any]:
        """Return a chunk with some text of a choice."""
        choice: dict[str, Any] = {"index": index, "finish_reason": None}
        choice |= self._content(delta.text)
        choice["logprobs"] = self._logprobs(delta.tokens)
        return {**self._head(chunk=True), "choices": [choice]}

    def final_chunk(self, index: int, request: Served, result: LaneResult) -> dict[str, Any]:
        """Return the last chunk of a choice: why it ended, in the API's terms and in ours."""
        choice: dict[str, Any] = {"index": index, "finish_reason": finish_reason(request, result)}
        choice |= {"delta": {}} if self.chat else self._content("")
        choice |= {"logprobs": None, "ostinato": extension(request, result)}
        return {**self._head(chunk=True), "choices": [choice]}

    def usage_chunk(
        self, requests: Sequence[Served], results: Sequence[LaneResult]
    ) -> dict[str, Any]:
        """Return the chunk of token counts, which ends a stream with `include_usage`."""
        return {**self._head(chunk=True), "choices": [], "usage": usage(requests, results)}

    def _content(self, text: str) -> dict[str, Any]:
        return {"delta": {"content": text}} if self.chat else {"text": text}

    def _head(self, *, chunk: bool) -> dict[str, Any]:
        if self.chat:
            kind, prefix = "chat.completion.chunk" if chunk else "chat.completion", "chatcmpl"
        else:
            kind, prefix = "text_completion", "cmpl"
        head = {"id": f"{prefix}-{self.id}", "object": kind, "created": self.created}
        return {**head, "model": self.model}

    def _choice(self, index: int, request: Served, result: LaneResult) -> dict[str, Any]:
        choice: dict[str, Any] = {"index": index, "finish_reason": finish_reason(request, result)}
        if self.chat:
            choice["message"] = {"role": "assistant", "content": request.text, "refusal": None}
        else:
            choice["text"] = request.text
        logprobs = self._logprobs(request.logprobs)
        return choice | {"logprobs": logprobs, "ostinato": extension(request, result)}

    def _logprobs(self, tokens: Sequence[Token]) -> dict[str, Any] | None:
        """Return the log-probabilities; the two APIs have different shapes for them."""
        if not tokens:
            return None
        if self.chat:
            return {"content": list(map(_chat_token, tokens)), "refusal": None}
        texts = [token.text for token in tokens]
        return {
            "tokens": texts,
            "token_logprobs": [token.logprob for token in tokens],
            # None in the older API where the request sets `logprobs` to 0: the sampled tokens only.
            "top_logprobs": [_by_text(token.top_logprobs) for token in tokens]
            if tokens[0].top_logprobs
            else None,
            "text_offset": [sum(map(len, texts[:n])) for n in range(len(texts))],
        }


def _chat_token(token: Token) -> dict[str, Any]:
    top = [
        {"token": one.text, "logprob": one.logprob, "bytes": list(one.bytes) or None}
        for one in token.top_logprobs
    ]
    return {
        "token": token.text,
        "logprob": token.logprob,
        "bytes": list(token.bytes) or None,
        "top_logprobs": top,
    }


def _by_text(top: Sequence[TopLogprob]) -> dict[str, float]:
    """Return log-probabilities by text; of tokens with equal text the most likely one counts."""
    return {one.text: one.logprob for one in reversed(top)}  # a later key replaces an earlier one


def finish_reason(request: Served, result: LaneResult) -> str:
    """Return why an answer ended, in the API's terms.

    `content_filter` if it did not pass its checks: the API has no closer term for a text that
    should not be used as it is.
    """
    if request.checks and not result.accepted:
        return "content_filter"
    # An accepted stop has the kind `passed`; `after` is what ended the draft.
    stopped = result.stopped
    after = stopped.numbers.get("after", stopped.kind)
    return "length" if after == StopKind.BUDGET else "stop"


def extension(request: Served, result: LaneResult) -> dict[str, Any]:
    """Return what the API has no fields for: why it stopped, its verdicts, and its cost."""
    counts = {name: int(result.spent.get(name, 0)) for name in ("computed", "judged")}
    return {
        "accepted": result.accepted if request.checks else None,
        "stopped": result.stopped.to_json(),
        "verdicts": [verdict.to_json() for verdict in result.verdicts],
        "rounds": result.rounds,
        "backtracks": result.backtracks,
        "seed": request.draws[0],
        "tokens": {"reply": result.length, **counts},
    }


def usage(requests: Sequence[Served], results: Sequence[LaneResult]) -> dict[str, int]:
    """Return the token counts of the kept texts; `extension` has those of discarded drafts."""
    prompt = len(requests[0].tokens)
    completion = sum(result.length for result in results)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
    }
