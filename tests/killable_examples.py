"""The loop of an example that `check_killed` starts in separate processes and kills."""

from __future__ import annotations

from functools import cache
from typing import Any

from tiny import tiny_model

from examples.adversarial_checks.rounds import AdversarialRounds, Drafter, Row, Writing, drafts_of
from ostinato.checks import Length
from ostinato.journal import Journal
from ostinato.loop import CheckpointSchedule, Loop, Steps

PROMPTS, ROUNDS = 6, 3
REFERENCES = Writing(drafts=1, max_new_tokens=10, temperature=1.5, seed=9)
MADE = Writing(drafts=3, max_new_tokens=10, temperature=1.0)


@cache
def rows() -> tuple[Row, ...]:
    """Return prompts with references of the tiny model itself, which are hard to tell."""
    asked = [
        {"id": f"d{n}", "messages": [{"role": "user", "content": f"Can you help with {n}?"}]}
        for n in range(PROMPTS * ROUNDS)
    ]
    written = Drafter(tiny_model(), REFERENCES)("references", asked, Length(min=0, max=99))
    texts = [drafts_of(row)[0][0] or "None." for row in written]
    return tuple(row | {"reference": text} for row, text in zip(asked, texts, strict=True))


def rounds(journal: Journal | None = None, caller: str = "") -> AdversarialRounds:
    """Return the process; with a journal its drafts are runs that `caller` has called."""
    draft = Drafter(tiny_model(), MADE, journal, caller)
    return AdversarialRounds(rows(), draft, first=PROMPTS, prompts=PROMPTS)


def adversarial_rounds(run: str, journal: Any) -> Loop:
    return Loop(
        rounds(journal, run),
        until=Steps(ROUNDS),
        run=run,
        journal=journal,
        checkpoint=CheckpointSchedule(steps=1),
    )
