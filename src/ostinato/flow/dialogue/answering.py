"""One answer in the making: by a rule, a past case, the model or a person.

Its own calls are recorded below the call of the answer, so that a flow that is killed in between,
or waits for a person, repeats none of them. Knows no dialogue but what it is given of one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from ostinato.arguments import counted
from ostinato.errors import InputError
from ostinato.flow.calls import ask
from ostinato.flow.dialogue.hand_over import HandOver
from ostinato.flow.dialogue.memory import (
    SUMMARY_TOKENS,
    Count,
    Message,
    after_summary,
    certainly_fits,
    counter,
    first_kept,
    history,
    summary_prompt,
)
from ostinato.flow.dialogue.turns import Memory, Turn
from ostinato.flow.frames import Frame
from ostinato.flow.limits import add_to
from ostinato.flow.record import Made
from ostinato.flow.text_calls import judged_text, written_text
from ostinato.journal import encode, valid
from ostinato.loop import digest
from ostinato.remote import Server

if TYPE_CHECKING:
    from ostinato.decode import SamplingParams
    from ostinato.flow.texts import Watch
    from ostinato.loop import Check
    from ostinato.models import LanguageModel
    from ostinato.refine import Route, RuleBook, Strategy


@dataclass(frozen=True, kw_only=True)
class AnswerSettings:
    """How the answers of a dialogue are made, see `Dialogue`."""

    system: str
    checks: tuple[Check, ...]
    model: LanguageModel | Server | str | None
    strategy: Strategy | str | None
    sampling: SamplingParams | None
    max_new_tokens: int
    rules: RuleBook | None
    given: Mapping[str, object]
    column: str
    summarize: bool
    context: int | None
    hand_over: HandOver
    watch: Watch | None
    tell: Callable[[str], object] | None


class Before(NamedTuple):
    """A dialogue as it stands before an answer; `failed` rounds since the last that passed."""

    turns: Sequence[Turn]
    memory: Memory
    spent: Mapping[str, float]
    failed: int


class Answering:
    """Makes the answer to a text in a frame of its own."""

    def __init__(
        self, settings: AnswerSettings, before: Before, frame: Frame, text: str, watch: Watch | None
    ) -> None:
        self._settings, self._before, self._frame = settings, before, frame
        self._text, self._watch = text, watch
        self._hub, self._record = frame.task.hub, frame.task.record
        said = [*history(before.turns), {"role": "user", "content": text}]
        self._columns = {**settings.given, settings.column: text, "messages": said}

    def row(self) -> dict[str, Any]:
        """Make the answer; return it as it is recorded."""
        settings, before = self._settings, self._before
        route = self._route()
        ready = None if route is None else self._ready(route)
        if ready is not None:
            return ready
        reached = settings.hand_over.reached(before.spent, before.failed)
        if reached:
            return self._by_person(reached, None)
        memory, messages = self._remembered(route)
        row = self._written("answer", messages, settings.checks, settings.max_new_tokens)
        if not row["accepted"] and "stopped" not in row:
            spent = dict(before.spent)
            add_to(spent, self._frame.spent[-1].totals)
            reached = settings.hand_over.reached(spent, before.failed + row["rounds"])
            if reached:
                return self._by_person(reached, row)
        changed = {} if memory == before.memory else {"memory": list(memory)}
        return {**row, **changed}

    # Rules and past cases ---------------------------------------------------------------------

    def _route(self) -> Route | None:
        book = self._settings.rules
        if book is None:
            return None
        # In the computing thread: past cases may be compared by a model.
        route: Route = self._hub.submit(
            lambda: book.router(self._settings.column).route(self._columns)
        )
        return route

    def _ready(self, route: Route) -> dict[str, Any] | None:
        """Return the answer of a rule or past case; None where there is none that passes."""
        if route.reply is None:
            return None
        checks = self._settings.checks
        verdicts = judged_text(self._frame, checks, route.reply, self._columns)
        if not all(verdict["passed"] for verdict in verdicts):
            return None
        by = route.near[0].case.question if route.near else route.rule
        why = f"The rule '{by}' answered." if not route.near else f"A past case answered: {by}"
        return {**_NOTHING_WRITTEN, "text": route.reply, "why": why, "verdicts": verdicts} | {
            "source": str(route.source.value),
            "by": by,
        }

    # The model --------------------------------------------------------------------------------

    def _remembered(self, route: Route | None) -> tuple[Memory, list[Message]]:
        """Return the turns that the model reads, and the messages; some may leave for them."""
        memory, turns = self._before.memory, self._before.turns
        messages = self._messages(memory, route)
        context = self._settings.context
        used = self._opened()
        most = None if isinstance(used, Server) else used.config.max_position_embeddings
        if context is not None and most is not None and context > most:
            raise InputError(
                "The context of a dialogue must be at most that of the model, "
                f"{counted(most, 'tokens')}, got "
                f"{context}. Leave it out."
            )
        context = context or most
        if context is None:
            return memory, messages
        room, count = self._room(context), counter(used)
        if certainly_fits(messages, room) or count(messages) <= room or memory.left >= len(turns):
            return memory, messages

        def count_from(first: int) -> int:
            return count(self._messages(Memory(first, memory.summary), route))

        first = first_kept(count_from, memory.left, len(turns), room)
        summary = self._summary(memory, first, count, context)
        while summary and count(self._messages(Memory(first, summary), route)) > room:
            summary = summary[: len(summary) // 2]  # written at length, or in rare characters
        one = first == 1
        them, cut = ("it", "It is cut.") if one else ("them", "They are cut.")
        how = f"The model sums {them} up: {summary}" if summary else cut
        left = "The first turn has" if one else f"The first {first} turns have"
        self._tell(f"{left} left the model's memory. {how}")
        memory = Memory(first, summary)
        return memory, self._messages(memory, route)

    def _room(self, context: int) -> int:
        """Return how many tokens a prompt may have."""
        from ostinato.refine import strategy_of

        drafts = 2 if strategy_of(self._settings.strategy).gives_feedback else 1
        return max(context - drafts * self._settings.max_new_tokens, context // 4)

    def _summary(self, memory: Memory, first: int, count: Count, context: int) -> str:
        """Return a summary of the turns before one, if that is wanted and they fit."""
        settings, leaving = self._settings, self._before.turns[memory.left : first]
        if not settings.summarize:
            return ""
        length = min(SUMMARY_TOKENS, context // 4)
        prompt = summary_prompt(settings.system, leaving, memory.summary, count, context - length)
        if not prompt:
            return memory.summary
        written: str = self._written("summary", prompt, (), length)["text"].strip()
        return written or memory.summary

    def _messages(self, memory: Memory, route: Route | None) -> list[Message]:
        """Return the prompt: what the model remembers, then examples and what is said now."""
        now = [{"role": "user", "content": self._text}]
        front = [{"role": "system", "content": self._settings.system}]
        if route is not None:
            now = [dict(each) for each in route.messages]
            systems = next((n for n, m in enumerate(now) if m["role"] != "system"), len(now))
            front, now = now[:systems] or front, now[systems:]
        front = [each for each in front if each["content"]]
        kept = history(self._before.turns[memory.left :])
        return [*front, *after_summary(memory.summary, [*kept, *now])]

    def _written(
        self, name: str, messages: list[Message], checks: tuple[Check, ...], length: int
    ) -> dict[str, Any]:
        """Let the model write a text, a call below that of the answer; return its row."""
        settings, answers = self._settings, name == "answer"

        def make(path: str) -> Made:
            made = written_text(
                self._frame,
                path,
                messages,
                checks,
                self._columns,
                watch=self._watch if answers else None,
                model=self._model,
                strategy=settings.strategy if answers else None,
                sampling=settings.sampling if answers else _greedy(),
                max_new_tokens=length,
            )
            # That of the whole answer is synced.
            return made._replace(synced=not answers)

        row: dict[str, Any] = self._record.call(
            self._frame, name, {"prompt": digest(messages)}, make
        )
        return row

    @property
    def _model(self) -> LanguageModel | Server | str:
        own = self._settings.model
        model: LanguageModel | Server | str = (
            self._frame.task.settings.model if own is None else own
        )
        return model

    def _opened(self) -> LanguageModel | Server:
        opened: LanguageModel | Server = self._frame.task.settings.opened(self._model, self._hub)
        return opened

    # A person ---------------------------------------------------------------------------------

    def _by_person(self, why: str, draft: Mapping[str, Any] | None) -> dict[str, Any]:
        """Ask a person for the answer; the model's draft did not pass, if there is one."""
        if not self._record.has_next(self._frame):
            self._tell(f"{why} A person answers.")
        shown, lost = "", []
        if draft is not None:
            failed = [verdict for verdict in draft["verdicts"] if not verdict["passed"]]
            reasons = [str(each.get("message") or each["check"]) for each in failed]
            shown = "\n".join([f"The model's draft: {draft['text']}", *reasons])
            names = [each["check"] for each in failed]
            lost = [*draft.get("taken_back", ()), [draft["text"], draft["why"], names]]
        given = ask(f"{why} Answer in its place: {self._text}", shown)
        text = given if isinstance(given, str) else encode(valid(given))
        row = {**_NOTHING_WRITTEN, "text": text, "why": "A person answered.", "source": "person"}
        return {**row, "handed_over": why, **({"taken_back": lost} if lost else {})}

    def _tell(self, sentence: str) -> None:
        if self._settings.tell is not None:
            self._settings.tell(sentence)


_NOTHING_WRITTEN: Mapping[str, Any] = {
    "accepted": True,
    "rounds": 0,
    "backtracks": 0,
    "tokens": 0,
    "computed": 0,
    "verdicts": [],
}


def _greedy() -> SamplingParams:
    from ostinato.decode import SamplingParams

    return SamplingParams(temperature=0.0)
