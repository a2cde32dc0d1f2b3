"""Answers in the API's shapes: whole, and as the chunks of a stream. Knows no connection."""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ostinato.server.requests import Delta, GenerationRequest, Token, TopLogprob


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What all parts of one answer share. `chat` tells which of the two APIs it is of."""

    chat: bool
    model: str
    id: str = field(default_factory=lambda: secrets.token_hex(12))
    created: int = field(default_factory=lambda: int(time.time()))

    def whole(
        self, orders: Sequence[GenerationRequest], rows: Sequence[Mapping[str, Any]]
    ) -> dict[str, Any]:
        """Return the whole answer of one or more choices."""
        choices = [self._choice(n, *pair) for n, pair in enumerate(zip(orders, rows, strict=True))]
        return {**self._head(chunk=False), "choices": choices, "usage": usage(orders, rows)}

    def piece(self, index: int, piece: Delta) -> dict[str, Any]:
        """Return a chunk that holds some text."""
        choice: dict[str, Any] = {"index": index, "finish_reason": None}
        choice["delta" if self.chat else "text"] = (
            {"content": piece.text} if self.chat else piece.text
        )
        choice["logprobs"] = self._logprobs(piece.tokens)
        return {**self._head(chunk=True), "choices": [choice]}

    def begin(self, index: int) -> dict[str, Any]:
        """Return a chat's first chunk, which names the role."""
        delta = {"role": "assistant", "content": ""}
        choice: dict[str, Any] = {"index": index, "delta": delta, "finish_reason": None}
        return {**self._head(chunk=True), "choices": [choice]}

    def end(self, index: int, order: GenerationRequest, row: Mapping[str, Any]) -> dict[str, Any]:
        """Return the last chunk of a choice: why it ended, in the API's words and in ours."""
        choice: dict[str, Any] = {"index": index, "finish_reason": finish_reason(order, row)}
        choice["delta" if self.chat else "text"] = {} if self.chat else ""
        choice |= {"logprobs": None, "ostinato": told(order, row)}
        return {**self._head(chunk=True), "choices": [choice]}

    def usage(
        self, orders: Sequence[GenerationRequest], rows: Sequence[Mapping[str, Any]]
    ) -> dict[str, Any]:
        """Return the chunk of token counts that follows where it is asked for."""
        return {**self._head(chunk=True), "choices": [], "usage": usage(orders, rows)}

    def _head(self, *, chunk: bool) -> dict[str, Any]:
        if self.chat:
            kind, name = "chat.completion.chunk" if chunk else "chat.completion", "chatcmpl"
        else:
            kind, name = "text_completion", "cmpl"
        made = {"id": f"{name}-{self.id}", "object": kind, "created": self.created}
        return {**made, "model": self.model}

    def _choice(
        self, index: int, order: GenerationRequest, row: Mapping[str, Any]
    ) -> dict[str, Any]:
        choice: dict[str, Any] = {"index": index, "finish_reason": finish_reason(order, row)}
        if self.chat:
            choice["message"] = {"role": "assistant", "content": order.text, "refusal": None}
        else:
            choice["text"] = order.text
        choice |= {"logprobs": self._logprobs(order.told), "ostinato": told(order, row)}
        return choice

    def _logprobs(self, tokens: Sequence[Token]) -> dict[str, Any] | None:
        if not tokens:
            return None
        if self.chat:
            return {"content": list(map(_chat_token, tokens)), "refusal": None}
        names = [token.text for token in tokens]
        return {
            "tokens": names,
            "token_logprobs": [token.logprob for token in tokens],
            "top_logprobs": [_by_text(token.top_logprobs) for token in tokens]
            if tokens[0].top_logprobs
            else None,
            "text_offset": [sum(map(len, names[:n])) for n in range(len(names))],
        }


def _chat_token(token: Token) -> dict[str, Any]:
    told = {"token": token.text, "logprob": token.logprob, "bytes": list(token.text.encode())}
    likeliest = [
        {"token": one.text, "logprob": one.logprob, "bytes": list(one.bytes) or None}
        for one in token.top_logprobs
    ]
    return {**told, "top_logprobs": likeliest}


def _by_text(likeliest: Sequence[TopLogprob]) -> dict[str, float]:
    """Return log-probabilities by text; of tokens that are spelled alike the likeliest counts."""
    return {one.text: one.logprob for one in reversed(likeliest)}


def finish_reason(order: GenerationRequest, row: Mapping[str, Any]) -> str:
    """Return why an answer ended, in the API's words.

    `content_filter` where it did not pass its checks: the API has no nearer word for a text that
    is not to be used as it is.
    """
    stopped = row["stopped"]
    if order.checks and not row["accepted"]:
        return "content_filter"
    after = stopped["numbers"].get("after", stopped["kind"])
    full = "context" in stopped["sentence"] and stopped["kind"] == "ended"
    return "length" if after == "budget" or full else "stop"


def told(order: GenerationRequest, row: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the API has no words for: why it stopped, its verdicts, and what it took."""
    spent = row["spent"]
    counts = {name: int(spent.get(name, 0)) for name in ("computed", "judged")}
    return {
        "accepted": row["accepted"] if order.checks else None,
        "stopped": row["stopped"],
        "verdicts": row["verdicts"],
        "rounds": row["rounds"],
        "backtracks": row["backtracks"],
        "seed": order.draws[0],
        "tokens": {"reply": row["length"], **counts},
    }


def usage(orders: Sequence[GenerationRequest], rows: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """Return the token counts; those of drafts that were not kept are told with each choice."""
    prompt = len(orders[0].tokens)
    written = sum(int(row["length"]) for row in rows)
    counts = {"prompt_tokens": prompt, "completion_tokens": written}
    return {**counts, "total_tokens": prompt + written}
