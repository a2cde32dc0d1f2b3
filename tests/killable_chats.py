"""Chats that a test kills: a scripted person who goes back and draws again, and two models."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ostinato.flow import ChatRun, ChatWork, Move, Stage, Turn, build_chat
from ostinato.journal import Journal, Run
from ostinato.loop import Loop
from ostinato.runs import record

BACK, RETRY = Move("back", turns=1), Move("retry")
MOVES: Sequence[Move | str] = (
    *("Hello there", "What is this?", RETRY, "And now?", BACK, "bye", "How are you?"),
    *("Where is it?", "When can you help me?", RETRY, Move("back", turns=2), "Anything else?"),
    *("Is it here?", "bye", "And the table?", "Which one?", RETRY, "Is it booked?", Move("end")),
)
RULES = """
[[rule]]
name = "bye"
column = "message"
pattern = '^bye$'
reply = "Goodbye."

[[check]]
kind = "excludes"
texts = ["u", "7"]
whole = false

[strategy]
kind = "backtrack"
rounds = 3
"""


class Script(Stage):
    """Makes the move after those that the run has recorded."""

    hears = True

    def __init__(self, run: Run) -> None:
        self._run = run

    def listen(self, turns: Sequence[Turn]) -> Move | None:
        made = sum(call.path.endswith(":user") for call in self._run.calls())
        move = MOVES[made]
        return Move("say", move) if isinstance(move, str) else move


def work(run: str, journal: Journal, model: str, partner: str = "") -> ChatWork:
    """Return a chat of a person or, with a `partner`, of two models."""
    rules = Path(model).parent / "rules.toml"
    if not rules.exists():
        rules.write_text(RULES)
    config = ChatRun(
        model=model,
        partner=partner,
        turns=14,
        rules=rules,
        max_new_tokens=10,
        temperature=1.0,
        system="Be kind.",
        seed=3,
    )
    found = record(journal, config, name=run)
    return build_chat(config, run=found, stage=Script(found))


def make(run: str, journal: Journal, model: str, partner: str = "") -> Loop:
    """Return the loop of a chat."""
    return work(run, journal, model, partner).loop
