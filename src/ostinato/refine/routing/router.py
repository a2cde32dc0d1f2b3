"""Routes an item before a model is called: to a rule, to a past case, or to a prompt.

A pure function of the job and of the item's columns, so it is computed again instead of recorded.
Knows no model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from ostinato.checks import BaseCheck, shown
from ostinato.errors import ItemError
from ostinato.refine.prompts import (
    Message,
    PlainPrompt,
    PromptTemplate,
    refuse_unusable,
    with_feedback,
)
from ostinato.refine.routing.cases import Cases, CaseSettings, Near
from ostinato.refine.routing.rules import Rule, first_rule


class RouteSource(StrEnum):
    """Where a reply comes from; the values are in the output."""

    MODEL = "model"
    RULE = "rule"
    CASE = "case"


@dataclass(frozen=True, slots=True)
class Route:
    """How an item is answered.

    `reply` is a ready answer, used only if it passes the checks; else, or if it is None, the model
    writes from `messages`. `rule` is the name of the rule that fits, `near` the past cases that are
    used.
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
    checks: Sequence[BaseCheck] = ()

    def route(self, columns: Mapping[str, object]) -> Route:
        """Return how an item is answered. Raises `ItemError` if its columns cannot be used."""
        refuse_unusable(columns, self.checks)
        rule = first_rule(self.rules, columns)
        name = rule.name if rule else ""
        prompt = rule.prompt if rule and rule.prompt else self.prompt
        # A canned reply wins over past cases, and needs no examples if the model writes after all.
        if rule and rule.reply:
            messages = tuple(prompt.fill(columns))
            return Route(messages, rule.reply.fill(columns), RouteSource.RULE, name)
        found = self._nearest(columns)
        examples = self._examples(found)
        messages = tuple(prompt.fill(columns, _turns(examples)))
        if found and self._is_answer(found[0]):
            return Route(messages, found[0].case.answer, RouteSource.CASE, name, (found[0],))
        return Route(messages, rule=name, near=examples)

    def ready(self, columns: Mapping[str, object]) -> str | None:
        """Return the answer that needs no model, None if there is none.

        None also for an item whose columns cannot be used: `messages` raises what is wrong with it.
        """
        try:
            refuse_unusable(columns, self.checks)
            rule = first_rule(self.rules, columns)
            if rule and rule.reply:  # without the prompt, which only the model needs
                return rule.reply.fill(columns)
            found = self._nearest(columns)
            return found[0].case.answer if found and self._is_answer(found[0]) else None
        except ItemError:
            return None

    def messages(
        self, columns: Mapping[str, object], edits: Mapping[str, object]
    ) -> list[Message] | PlainPrompt:
        """Return an item's prompt; `edits["feedback"]` holds its last draft."""
        messages = list(self.route(columns).messages)
        # `Job` refuses a plain prompt with feedback or examples, so there is one message.
        if self.prompt.plain:
            return PlainPrompt(messages[0]["content"])
        feedback = edits.get("feedback")
        return with_feedback(messages, feedback) if isinstance(feedback, Mapping) else messages

    def _nearest(self, columns: Mapping[str, object]) -> list[Near]:
        settings = self.case_settings
        if self.cases is None or settings is None:
            return []
        message = shown(columns.get(settings.column))
        # At least one: the nearest can be the answer even where no examples are shown.
        return self.cases.nearest(message, max(1, settings.examples))

    def _is_answer(self, near: Near) -> bool:
        least = self.case_settings.answer_above if self.case_settings else None
        return least is not None and near.similarity >= least

    def _examples(self, found: Sequence[Near]) -> tuple[Near, ...]:
        settings = self.case_settings
        if settings is None:
            return ()
        similar = (near for near in found if near.similarity >= settings.example_above)
        return tuple(similar)[: settings.examples]


def _turns(near: Sequence[Near]) -> list[Message]:
    """Return past cases as turns of a conversation, the nearest last: next to the question."""
    return [
        message
        for one in reversed(near)
        for message in (
            {"role": "user", "content": one.case.question},
            {"role": "assistant", "content": one.case.answer},
        )
    ]
