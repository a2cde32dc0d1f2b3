"""Dialogues: a conversation with a model in a flow. Each answer is a call, made once.

Rules and past cases come first, then the model, under checks. Where a limit is reached, a person
answers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ostinato.arguments import require, require_at_least, require_choice
from ostinato.errors import InputError
from ostinato.flow.dialogue.answering import Answering, AnswerSettings, Before
from ostinato.flow.dialogue.hand_over import HandOver
from ostinato.flow.dialogue.turns import Answer, Memory, Turn
from ostinato.flow.frames import Frame, caller, entered, frame_of
from ostinato.flow.limits import Spent, add_to
from ostinato.flow.record import Made, handled_later
from ostinato.flow.text_calls import as_checks

if TYPE_CHECKING:
    from ostinato.decode import SamplingParams
    from ostinato.flow.texts import Watch
    from ostinato.journal import Journal
    from ostinato.models import LanguageModel
    from ostinato.refine import AnyCheck, RuleBook, Strategy
    from ostinato.remote import Server

MAX_NEW_TOKENS = 256
"""The most tokens of a draft where nobody says how many."""


class Dialogue:
    """A conversation with a model: `say` returns its answer, and remembers both.

    Make it in a flow, and call it there; `run` is for elsewhere. `system` is the system message.
    `checks`, `strategy`, `sampling` and `max_new_tokens` are those of `generate`, for each answer;
    `model` is that of the run by default. Those of `rules`, a job file or what `read_rule_book`
    returns, hold where they are not given; its rules and past cases are asked first.

    Checks and rules read the columns that are `given`; the one called as `column` is what was said,
    `messages` the conversation until then.

    `memory` says what becomes of the oldest turns where the conversation does not fit into the
    model's context any more: the model writes a "summary", or they are "cut". `context` is its
    length in tokens, that of the model by default; for a model on a server it must be given, else
    all turns are sent. Where a limit of `hand_over` is reached, a person is asked instead.

    `watch` gets each answer as it grows, whole each time: a part of it may have been taken back. A
    sentence that it returns ends the answer, and says why.
    `tell` gets a sentence where turns leave the memory, and where a person is asked.
    """

    def __init__(
        self,
        system: str = "",
        checks: AnyCheck | Iterable[AnyCheck] = (),
        *,
        model: LanguageModel | Server | str | None = None,
        strategy: Strategy | str | None = None,
        sampling: SamplingParams | None = None,
        max_new_tokens: int | None = None,
        rules: RuleBook | Path | str | None = None,
        given: Mapping[str, object] | None = None,
        column: str = "message",
        memory: Literal["summary", "cut"] = "summary",
        context: int | None = None,
        hand_over: HandOver | None = None,
        watch: Watch | None = None,
        tell: Callable[[str], object] | None = None,
    ) -> None:
        require(isinstance(system, str), "system", "a text", system)
        require_choice("memory", memory, ("summary", "cut"))
        limits = {"max_new_tokens": max_new_tokens, "context": context}
        require_at_least(1, **{name: each for name, each in limits.items() if each is not None})
        book = _rule_book(rules, {column, "messages", *(given or {})})
        own = as_checks(checks)
        length = max_new_tokens or (None if book is None else book.max_new_tokens)
        self.settings = AnswerSettings(
            system=system,
            checks=own or (() if book is None else book.checks),
            model=model,
            strategy=strategy or (None if book is None else book.strategy),
            sampling=sampling or (None if book is None else book.sampling),
            max_new_tokens=length or MAX_NEW_TOKENS,
            rules=book,
            given=dict(given or {}),
            column=column,
            summarize=memory == "summary",
            context=context,
            hand_over=hand_over or HandOver(),
            watch=watch,
            tell=tell,
        )
        self._start()

    def _start(self) -> None:
        self._turns: list[Turn] = []
        self._spent: dict[str, float] = {}
        self._failed = 0
        self._owner: tuple[object, str] | None = None
        self._busy = False

    @property
    def turns(self) -> Sequence[Turn]:
        """What was said and answered, oldest first; without what was taken back."""
        return tuple(self._turns)

    @property
    def memory(self) -> Memory:
        """What the model read of the turns before the last answer."""
        found = (turn.answer.memory for turn in reversed(self._turns))
        return next((each for each in found if each is not None), Memory())

    @property
    def spent(self) -> Mapping[str, float]:
        """What all answers have spent, also those that were taken back: tokens, seconds, cost."""
        return dict(self._spent)

    @property
    def failed(self) -> int:
        """How many rounds were written since the last answer that passed."""
        return self._failed

    # In a flow --------------------------------------------------------------------------------

    def say(self, text: str, *, watch: Watch | None = None) -> Answer:
        """Say something, and return the answer. A call of the flow, made once.

        `watch` replaces that of the dialogue. An answer that did not pass the checks has `accepted`
        False. Raises `ItemError` where nothing can be answered, as to a text that is longer than
        the model's context, and `InputError` outside of the flow that made the dialogue.
        """
        right = isinstance(text, str) and bool(text.strip())
        require(right, "What is said in a dialogue", "a text", text)
        frame = self._frame()
        self._busy = True
        try:
            turn = self._answered(frame, str.__str__(text), watch or self.settings.watch)
        finally:
            self._busy = False
        self._turns.append(turn)
        add_to(self._spent, turn.answer.spent)
        self._failed = 0 if turn.answer.accepted else self._failed + turn.answer.rounds
        return turn.answer

    def back(self, turns: int = 1) -> None:
        """Take back the last turns: the dialogue goes on as if they had not been said."""
        there = len(self._turns)
        if not 1 <= turns <= there:
            raise InputError(
                f"The turns to take back must be 1 to {there}, got {turns}. "
                + ("Take back fewer." if there else "Nothing has been said yet.")
            )
        del self._turns[there - turns :]

    def retry(self, *, watch: Watch | None = None) -> Answer:
        """Return another answer to what was said last; the one before it is taken back."""
        require(bool(self._turns), "A dialogue", "one with an answer, to retry it", None)
        said = self._turns[-1].said
        self.back()
        return self.say(said, watch=watch)

    def _answered(self, frame: Frame, text: str, watch: Watch | None) -> Turn:
        record, spent = frame.task.record, Spent()

        def make(path: str) -> Made:
            inner = frame.branch(f"{path.removeprefix(record.prefix)}/", (spent,))
            before = Before(self.turns, self.memory, self.spent, self._failed)
            try:
                with entered(inner):
                    row = Answering(self.settings, before, inner, text, watch).row()
            except Exception:
                handled_later(frame, inner)
                raise
            record.require_all(inner)
            record.settle(inner)
            return Made({**row, "spent": dict(spent.totals)}, synced=True)

        row = record.call(frame, "say", {"text": text}, make, spent)
        path = f"{record.prefix}{frame.path}{frame.calls}:say"
        return Turn(text, Answer.of(row), path)

    def _frame(self) -> Frame:
        """Return the frame of the next call. Raises `InputError` where it is not the dialogue's."""
        frame = frame_of("say")
        here = (frame.task.record, frame.path)
        if self._owner is None:
            self._owner = here
        if self._busy or self._owner[0] is not here[0] or self._owner[1] != here[1]:
            raise InputError(
                f"A dialogue must be made where it is used, in one flow and one branch of it, got "
                f"one of elsewhere, at {caller()}. Make it within the function, so that it begins "
                "anew when the flow is replayed."
            )
        return frame

    # Elsewhere --------------------------------------------------------------------------------

    def run(
        self,
        messages: Iterable[str] | Callable[[Answer | None], str | None],
        *,
        run: str | None = None,
        journal: Journal | None = None,
        model: Any = "smollm2",
        seed: int = 0,
        slots: int = 4,
    ) -> Iterator[Answer]:
        """Say one message after the other, and yield the answers; outside of flows.

        `messages` are texts, or a function that returns the next one: it gets the last answer, and
        returns None to end. What it returned is recorded. With `run`, the conversation is recorded
        under that name, and the same call resumes it; its answers are yielded from the first on.
        Raises `Unanswered` where a person is to answer.
        """
        from ostinato.flow.dialogue.run import run_dialogue

        return run_dialogue(
            self.fresh(), messages, name=run, journal=journal, model=model, seed=seed, slots=slots
        )

    def fresh(self) -> Dialogue:
        """Return a dialogue with these settings in which nothing has been said."""
        other = object.__new__(type(self))
        other.settings = self.settings
        other._start()
        return other


def _rule_book(rules: RuleBook | Path | str | None, columns: Iterable[str]) -> RuleBook | None:
    """Return the rules that can be used. Raises `InputError` for one that needs other columns."""
    from ostinato.refine import read_rule_book

    if rules is None:
        return None
    book = read_rule_book(rules) if isinstance(rules, str | Path) else rules
    usable, left_out = book.with_columns(list(columns))
    if left_out:
        raise InputError(
            f"The rules of a dialogue must need only columns that it has, and in {book.file.name} "
            f"{left_out[0]} Give it with given={{…}}, or use the rules of "
            "read_rule_book(…).with_columns([…])[0]."
        )
    return usable
