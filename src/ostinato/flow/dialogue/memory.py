"""What of a dialogue fits into a model's context, and how the rest is summarized.

Knows no flow: counts messages by a function that it is given.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ostinato.flow.dialogue.turns import Turn

Message = dict[str, str]
Count = Callable[[Sequence[Message]], int]
"""Returns how many tokens messages have as a prompt."""

KEPT = 0.5
"""The share of the room that the turns may take which stay, when some leave.

Each time that turns leave, the beginning of the prompt changes, and all of it is computed again:
this is done seldom.
"""
SUMMARY_TOKENS = 128
BYTES_PER_TOKEN = 3
"""For models on servers, whose tokens are not known: English has about 4, Chinese 3."""
FRAME_TOKENS = 32
"""Tokens that a template puts around a message, at most; some begin with a message of their own."""

SUMMARIZE = (
    "Summarize our conversation so far in at most 60 words: names, facts, wishes, open questions. "
    "Write the summary only."
)


def history(turns: Sequence[Turn]) -> list[Message]:
    """Return turns as messages."""
    return [
        message
        for turn in turns
        for message in (
            {"role": "user", "content": turn.said},
            {"role": "assistant", "content": str.__str__(turn.answer)},
        )
    ]


def after_summary(summary: str, messages: Sequence[Message]) -> list[Message]:
    """Return messages whose first of the user begins with what came before it.

    Not as a message of the system, which some templates do not take.
    """
    told = [dict(each) for each in messages]
    first = next((each for each in told if each["role"] == "user"), None)
    if summary and first is not None:
        first["content"] = f"(Earlier in our conversation: {summary})\n\n{first['content']}"
    return told


def certainly_fits(messages: Sequence[Message], room: int) -> bool:
    """Whether messages fit into `room` tokens, whatever the tokenizer: a token has a byte."""
    size = sum(len(each["content"].encode()) + FRAME_TOKENS for each in messages)
    return size + 2 * FRAME_TOKENS <= room


def first_kept(count: Callable[[int], int], left: int, turns: int, room: int) -> int:
    """Return the number of the first turn that stays, where all from `left` on do not fit.

    `count(n)` is the number of tokens where the turns from `n` on stay.
    """
    low, high = left + 1, turns
    while low < high:
        middle = (low + high) // 2
        if count(middle) <= room * KEPT:
            high = middle
        else:
            low = middle + 1
    return low


def summary_prompt(
    system: str, turns: Sequence[Turn], summary: str, count: Count, room: int
) -> list[Message]:
    """Return the messages that ask for a summary of turns, of as many as fit; none where none do.

    They begin as the prompts of these turns did, whose computation is reused.
    """
    front = [{"role": "system", "content": system}] if system else []
    request = {"role": "user", "content": SUMMARIZE}
    for first in range(len(turns)):
        messages = [*front, *after_summary(summary, history(turns[first:])), request]
        if certainly_fits(messages, room) or count(messages) <= room:
            return messages
    return []


def counter(model: Any) -> Count:
    """Return what counts the tokens of a prompt of a model; an estimate for one on a server."""
    from ostinato.remote import Server

    if isinstance(model, Server):
        return lambda messages: sum(
            len(each["content"].encode()) // BYTES_PER_TOKEN + 4 for each in messages
        )
    return lambda messages: len(model.tokenizer.chat(messages))
