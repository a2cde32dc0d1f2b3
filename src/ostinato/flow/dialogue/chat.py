"""Chats as flows: a person and a model, or two models; where they are shown, and their export."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ostinato.errors import ItemError
from ostinato.flow.dialogue.dialogue import Dialogue
from ostinato.flow.dialogue.memory import history
from ostinato.flow.dialogue.moves import Move, next_move
from ostinato.flow.dialogue.turns import Answer, Turn
from ostinato.flow.frames import frame_of


class Stage:
    """Where a chat is shown and heard. This one shows nothing, and hears nothing.

    What was recorded before is not played again: `answering` and `listen` get all turns so far.
    """

    hears = False
    """Whether `listen` may be called; else moves are asked for, and the run waits."""

    def listen(self, turns: Sequence[Turn]) -> Move | None:
        """Return what the person does; None where they leave. In the computing thread."""
        return None

    def answering(self, turns: Sequence[Turn], said: str) -> None:
        """Show that an answer to what is said begins."""

    def watch(self, text: str) -> str | None:
        """Show an answer as it grows, whole each time; return why it must end, if it must.

        In the computing thread.
        """
        return None

    def answered(self, turns: Sequence[Turn]) -> None:
        """Show the answer of the last turn, which is final."""

    def tell(self, sentence: str) -> None:
        """Show what happens besides."""


def with_person(make: Callable[[], Dialogue], stage: Stage, turns: list[Turn]) -> Callable[[], int]:
    """Return the function of a flow in which a person talks with a model, until they end it.

    It keeps the turns that stand in `turns`.
    """

    def talk() -> int:
        dialogue = make()
        while True:
            turns[:] = dialogue.turns
            move = next_move(dialogue.turns, stage.listen if stage.hears else None)
            there = len(dialogue.turns)
            match move.kind:
                case "end":
                    return there
                case "say":
                    _say(dialogue, move.text, dialogue.turns, stage)
                case "back" if 0 < move.turns <= there:
                    dialogue.back(move.turns)
                case "retry" if there:
                    said = dialogue.turns[-1].said
                    dialogue.back()
                    _say(dialogue, said, dialogue.turns, stage)

    return talk


def between_models(
    make: Callable[[], Sequence[Dialogue]],
    opening: str,
    count: int,
    stage: Stage,
    turns: list[Turn],
) -> Callable[[], int]:
    """Return the function of a flow in which two models talk; the first answers the opening.

    It keeps their `count` turns in `turns`.
    """

    def talk() -> int:
        speakers, said = make(), opening
        turns.clear()
        for number in range(count):
            turn = _say(speakers[number % 2], said, turns, stage)
            if turn is None:
                break
            turns.append(turn)
            said = turn.answer.strip() or SILENCE
        return len(turns)

    return talk


SILENCE = "(says nothing)"
"""What a model is told where the other one has ended its text at once."""


def _say(dialogue: Dialogue, said: str, before: Sequence[Turn], stage: Stage) -> Turn | None:
    """Say something, and show it unless it is recorded; None where there is no answer."""
    frame = frame_of("say")
    live = not frame.task.record.has_next(frame)
    if live:
        stage.answering(before, said)
    try:
        dialogue.say(said, watch=stage.watch)
    except ItemError as error:
        if live:
            stage.tell(str(error))
        return None
    turn = dialogue.turns[-1]
    if live:
        stage.answered([*before, turn])
    return turn


# Export -----------------------------------------------------------------------------------------


def conversation(turns: Sequence[Turn], system: str, names: Sequence[str]) -> dict[str, Any]:
    """Return a conversation as JSON: `messages`, and what is known of each answer.

    `names` are those of the models that answered, in turns.
    """
    front = [{"role": "system", "content": system}] if system else []
    said = turns[:: len(names)]  # what the second model answered is what the first was told
    last = turns[-1:] if len(turns) % len(names) == 0 and len(names) > 1 else ()
    after = [{"role": "user", "content": str.__str__(turn.answer)} for turn in last]
    messages = [*front, *history(said), *after]
    answers = [
        {"turn": number, "model": names[(number - 1) % len(names)], **told(turn.answer)}
        for number, turn in enumerate(turns, 1)
    ]
    return {"messages": messages, "answers": answers}


def told(answer: Answer) -> dict[str, Any]:
    """Return what is known of an answer besides its text."""
    return {
        "accepted": answer.accepted,
        "why": answer.why,
        "source": answer.source,
        **({"by": answer.by} if answer.by else {}),
        **({"handed_over": answer.handed_over} if answer.handed_over else {}),
        "rounds": answer.rounds,
        "backtracks": answer.backtracks,
        "tokens": answer.tokens,
        "computed": answer.computed,
        "seconds": round(answer.seconds, 3),
        "verdicts": [verdict.to_json() for verdict in answer.verdicts],
        "taken_back": [each._asdict() for each in answer.taken_back],
    }
