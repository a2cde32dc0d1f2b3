"""Dialogues that are run by themselves: what is said comes from a list or from a function."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from typing import Any

from ostinato.arguments import require
from ostinato.flow.config import FlowRun
from ostinato.flow.dialogue.moves import Move, next_move, turns_of
from ostinato.flow.dialogue.turns import Answer
from ostinato.flow.flow_function import FlowFunction
from ostinato.flow.run import not_ended, recorded, refuse_nested, work_of
from ostinato.journal import Journal
from ostinato.loop import digest

NAME = "dialogue"

Asked = Callable[[Answer | None], str | None]
"""Returns what is said after an answer (None: at the beginning), or None to end."""


def run_dialogue(
    dialogue: Any,  # a `Dialogue`, which knows this module
    messages: Iterable[str] | Asked,
    *,
    name: str | None,
    journal: Journal | None,
    model: Any,
    seed: int,
    slots: int,
) -> Iterator[Answer]:
    """Say messages in a flow of its own; yield the answers, recorded ones first."""
    refuse_nested("Dialogue")
    said = None if callable(messages) else list(messages)
    require(said is None or bool(said), "messages", "at least one text, or a function", said)
    answers: list[Answer] = []

    def talk() -> int:
        talking = dialogue.fresh()
        for text in said if said is not None else _said(talking, messages):
            answers.append(talking.say(text))
        return len(talking.turns)

    config = FlowRun(
        function=NAME,
        arguments={"system": dialogue.settings.system, "said": digest(said) if said else ""},
        model=model if isinstance(model, str) else model.name,
        seed=seed,
        slots=slots,
    )
    with ExitStack() as stack:
        run = recorded(config, name, journal, stack)
        if run is not None and run.status == "stopped":
            yield from (turn.answer for turn in turns_of(run.calls()))
            return
        work = work_of(FlowFunction(talk, None), [(NAME, {})], config, run=run, model=model)
        shown = 0
        with work.loop:
            try:
                for _ in work.loop:
                    while shown < len(answers):
                        shown += 1
                        yield answers[shown - 1]
            finally:
                work.close()
        yield from answers[shown:]
        if work.loop.stopped is None or not work.loop.stopped.good:
            raise not_ended(work)


def _said(dialogue: Any, asked: Any) -> Iterator[str]:
    """Yield what a function returns after each answer; each is recorded."""

    def listen(turns: Any) -> Move:
        text = asked(turns[-1].answer if turns else None)
        require(text is None or isinstance(text, str), "What is said", "a text or None", text)
        return Move("end") if text is None else Move("say", text)

    while (move := next_move(dialogue.turns, listen)).kind == "say":
        yield move.text
