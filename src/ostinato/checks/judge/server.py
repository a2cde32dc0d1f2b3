"""Judging by a model on a server: how likely it answers yes to a question."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple

from ostinato.errors import InputError
from ostinato.remote import (
    CompletionRequest,
    PermanentError,
    RetryableError,
    Server,
    ServerError,
    StreamChunk,
    Usage,
    complete,
)

SECONDS = 8.0  # for all attempts together; the runner gives a check 10
ANSWER_TOKENS = 4  # a first word of yes or no, with a space or quote before it
ALTERNATIVES = 10  # most likely first tokens: yes and no in several spellings


class Opinion(NamedTuple):
    """A judge's answer: P(yes) of yes and no, the tokens it took (read and written), their cost.

    `error` says why the answer is neither; it has a cost all the same.
    """

    yes: float
    tokens: int
    cost: float = 0.0
    error: str = ""


def ask_server(server: Server, question: str) -> Opinion:
    """Ask a server a question, by the log-probabilities of its answer's first token.

    Where it sends none, the first word counts as certain. Raises `InputError` for a server that
    cannot be used.
    """
    server = replace(server, seeds=False)  # at temperature 0 nothing is sampled
    with_logprobs = replace(server, logprobs=True, top_logprobs=ALTERNATIVES)
    request = CompletionRequest(
        prompt=question, max_tokens=ANSWER_TOKENS, sampling={"temperature": 0}
    )
    deadline = time.monotonic() + SECONDS
    try:
        try:
            answer = complete(with_logprobs, request, seconds=SECONDS)
        except PermanentError:  # some servers refuse requests for log-probabilities
            answer = complete(server, request, seconds=deadline - time.monotonic())
    except (PermanentError, RetryableError, ServerError) as error:
        raise InputError(
            f"A judge's server must answer, got an error from {server.url}. {error} Check that it "
            "runs, its URL, its model and the key."
        ) from None
    usage = answer.usage or _estimated_usage(question)
    tokens, cost = usage.prompt + usage.tokens, server.cost(usage.prompt, usage.tokens)
    try:
        return Opinion(_yes(answer), tokens, cost)
    except InputError as error:
        return Opinion(0.0, tokens, cost, error=str(error))


def _yes(answer: StreamChunk) -> float:
    word = re.search(r"\w+", answer.text)
    return share_of_yes(answer.top_logprobs or {word[0] if word else "": 0.0})


def _estimated_usage(question: str) -> Usage:
    return Usage(prompt=len(question.encode()) // 4, tokens=1)


def share_of_yes(logprobs: Mapping[str, float]) -> float:
    """Return P(yes) / (P(yes) + P(no)) from the log-probabilities of an answer's first tokens.

    Spellings add up: "Yes", " yes". Raises `InputError` where neither is among them.
    """
    probs = {"yes": 0.0, "no": 0.0}
    for text, logprob in logprobs.items():
        word = text.strip().casefold()
        if word in probs:
            probs[word] += math.exp(logprob)
    total = sum(probs.values())
    if total == 0:
        raise InputError(
            "A judge must answer with yes or no, got neither among its most likely first tokens. "
            'Put it into the question: "… Answer with yes or no."'
        )
    return probs["yes"] / total
