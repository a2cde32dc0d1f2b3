"""Choose the past cases: courtesies that customers often say, with what the desk mostly answered.

Only messages that thank or take leave: their answers need no record, so they can be said again.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

_GENERAL = re.compile(
    r"(You're welcome|My pleasure|No problem|Sure|Okay|Alright)?[.,!]? ?(Have an? "
    r"(\w+ )?(day|one|time)|Is there anything else I can (help|assist) (you )?with( today)?"
    r"|Can I help you with anything else|Take care|Enjoy your day)[.!?]",
    re.IGNORECASE,
)


def choose_cases(turns: Iterable[tuple[str, str]], count: int) -> list[dict[str, str]]:
    """Return the most frequent messages of `turns`, each with its commonest answer.

    Only answers that say nothing of the matter count; of messages with the same words, one is
    taken.
    """
    answers: dict[tuple[str, ...], Counter[str]] = defaultdict(Counter)
    spellings: dict[tuple[str, ...], Counter[str]] = defaultdict(Counter)
    for message, answer in turns:
        words = tuple(sorted(re.findall(r"\w+", message.lower())))
        spellings[words][message] += 1
        if _GENERAL.fullmatch(answer) and answer[0].isupper():
            answers[words][answer] += 1
    often = sorted(answers, key=lambda words: (-sum(answers[words].values()), words))[:count]
    return [
        {"message": _commonest(spellings[words]), "reply": _commonest(answers[words])}
        for words in often
    ]


def _commonest(counts: Counter[str]) -> str:
    return min(counts, key=lambda text: (-counts[text], text))


def turns_of(dialogues: Iterable[Mapping[str, Any]]) -> Iterable[tuple[str, str]]:
    """Yield each message of a customer with the answer to it."""
    for dialogue in dialogues:
        turns = dialogue["turns"]
        yield from ((turns[i][1], turns[i + 1][1].strip()) for i in range(0, len(turns) - 1, 2))
