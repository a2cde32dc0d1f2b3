"""What a person does in a dialogue, as a flow records it, and the turns that follow from that.

A move is made once: who resumes the run gets the recorded one, and nobody is asked again.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal, NamedTuple

from ostinato.errors import InputError, Unanswered
from ostinato.flow.dialogue.turns import Answer, Turn
from ostinato.flow.frames import frame_of
from ostinato.flow.hub import Suspended
from ostinato.flow.record import Made
from ostinato.journal import Call, encode, valid

USER, SAY = "user", "say"
"""The names of the calls: what a person does, and what is answered."""

_TOP = re.compile(rf"(\d+):({USER}|{SAY})")


class Move(NamedTuple):
    """What a person does: says a `text`, takes `turns` back, wants another answer, or ends."""

    kind: Literal["say", "back", "retry", "end"]
    text: str = ""
    turns: int = 0

    def to_json(self) -> dict[str, Any]:
        """Return the move as it is recorded."""
        value: dict[str, Any] = {"say": self.text, "back": self.turns}
        return {self.kind: value.get(self.kind, True)}

    @classmethod
    def of(cls, value: object) -> Move:
        """Return the move that was recorded; anything else is said."""
        if isinstance(value, str):
            return cls("say", value)
        match value:
            case {"say": str(text)}:
                return cls("say", text)
            case {"back": int(turns)}:
                return cls("back", turns=turns)
            case {"retry": True}:
                return cls("retry")
            case {"end": True}:
                return cls("end")
        return cls("say", encode(valid(value)))


Listen = Callable[[Sequence[Turn]], Move | None]
"""Returns what the person does after some turns; None where they leave, to resume the run later."""


def next_move(turns: Sequence[Turn], listen: Listen | None) -> Move:
    """Return the next move: a call of the flow, made once.

    Without `listen` it is asked for as a question, which `ostinato runs answer` answers.
    """
    frame = frame_of("A move")
    record, session, hub = frame.task.record, frame.task.session, frame.task.hub

    def heard(path: str) -> Made:
        assert listen is not None
        move = hub.submit(lambda: listen(turns))
        if move is None:
            raise Suspended
        return Made(move.to_json(), synced=True)

    def asked(path: str) -> Made:
        if session is None:
            raise InputError(
                "A chat must be recorded as a run to ask what is said next, got one without a run. "
                "Give it one, or somebody to listen to."
            )
        try:
            return Made(session.ask(path, "What do you say next?", seconds=0))
        except Unanswered as error:
            raise frame.task.suspend(error) from None

    if listen is None:
        return Move.of(record.answered(frame, USER, asked))
    return Move.of(record.call(frame, USER, {}, heard))


def turns_of(calls: Iterable[Call]) -> list[Turn]:
    """Return the turns that recorded calls lead to, without those that were taken back."""
    found = [(match, call) for call in calls if (match := _TOP.fullmatch(call.path))]
    turns: list[Turn] = []
    for match, call in sorted(found, key=lambda each: int(each[0][1])):
        value: Any = call.answer
        if call.author is None and isinstance(value, dict) and "value" in value:
            value = value["value"]
        if call.error is not None:
            continue
        if match[2] == SAY:
            turns.append(Turn(str(call.arguments["text"]), Answer.of(value), call.path))
        else:
            move = Move.of(value)
            taken = move.turns if move.kind == "back" else int(move.kind == "retry")
            if 0 < taken <= len(turns):
                del turns[-taken:]
    return turns
