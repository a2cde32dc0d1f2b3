"""What becomes of an item before a model is asked: a rule, a past case, or a prompt.

A pure function of the job and of the item's columns: asked again, it says the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from ostinato.checks import shown
from ostinato.errors import ItemError
from ostinato.refine.prompts import Message, PlainPrompt, PromptTemplate, with_feedback
from ostinato.refine.routing.cases import Cases, CaseSettings, Near
from ostinato.refine.routing.rules import Rule, first_rule


class RouteSource(StrEnum):
    """Where a reply comes from."""

    MODEL = "model"
    RULE = "rule"
    CASE = "case"


@dataclass(frozen=True, slots=True)
class Route:
    """How an item is answered.

    `reply` is an answer that is ready (None: the model writes it from `messages`); it holds only
    where it passes the checks, else the model writes after all. `rule` is the name of the rule
    that fits, `near` are the past cases that are used.
    """

    messages: tuple[Message, ...]
    reply: str | None = None
    source: RouteSource = RouteSource.MODEL
    rule: str = ""
    near: tuple[Near, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Router:
    """Answers items by rules and past cases, and writes the prompts of the others."""

    prompt: PromptTemplate
    rules: Sequence[Rule] = ()
    cases: Cases | None = None
    case_settings: CaseSettings | None = None

    def plan(self, columns: Mapping[str, object]) -> Route:
        """Return how an item is answered. Raises `ItemError` where it cannot be worked on."""
        rule = first_rule(self.rules, columns)
        name = rule.name if rule else ""
        prompt = rule.prompt if rule and rule.prompt else self.prompt
        if rule and rule.reply:
            messages = tuple(prompt.fill(columns))
            return Route(messages, rule.reply.fill(columns), RouteSource.RULE, name)
        found = self._found(columns)
        examples = self._examples(found)
        messages = tuple(prompt.fill(columns, _turns(examples)))
        if found and self._answers(found[0]):
            return Route(messages, found[0].case.answer, RouteSource.CASE, name, (found[0],))
        return Route(messages, rule=name, near=examples)

    def ready(self, columns: Mapping[str, object]) -> str | None:
        """Return the answer that needs no model, if there is one.

        An item that cannot be worked on has none: `messages` says what is wrong with it.
        """
        try:
            return self.plan(columns).reply
        except ItemError:
            return None

    def messages(
        self, columns: Mapping[str, object], edits: Mapping[str, object]
    ) -> list[Message] | PlainPrompt:
        """Return the prompt of an item; `edits["feedback"]` holds its last draft."""
        messages = list(self.plan(columns).messages)
        if self.prompt.plain:
            return PlainPrompt(messages[0]["content"])
        feedback = edits.get("feedback")
        return with_feedback(messages, feedback) if isinstance(feedback, Mapping) else messages

    def _found(self, columns: Mapping[str, object]) -> list[Near]:
        settings = self.case_settings
        if self.cases is None or settings is None:
            return []
        message = shown(columns.get(settings.column))
        return self.cases.nearest(message, max(1, settings.examples))

    def _answers(self, near: Near) -> bool:
        above = self.case_settings.answer_above if self.case_settings else None
        return above is not None and near.likeness >= above

    def _examples(self, found: Sequence[Near]) -> tuple[Near, ...]:
        settings = self.case_settings
        if settings is None:
            return ()
        alike = (near for near in found if near.likeness >= settings.example_above)
        return tuple(alike)[: settings.examples]


def _turns(near: Sequence[Near]) -> list[Message]:
    """Return past cases as turns of a conversation, the nearest last."""
    return [
        message
        for one in reversed(near)
        for message in (
            {"role": "user", "content": one.case.question},
            {"role": "assistant", "content": one.case.answer},
        )
    ]
