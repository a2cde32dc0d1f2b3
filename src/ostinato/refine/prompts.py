"""Prompts: from an item to chat messages, with examples and the reasons of a failed draft.

Knows columns and messages; knows no tokenizer and no model.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ostinato.checks import BaseCheck, Template
from ostinato.errors import InputError, ItemError
from ostinato.loop import Check
from ostinato.text_files import half_character, parse_json

Message = dict[str, str]
"""A chat message, with `role` and `content`."""

ROLES = ("system", "user", "assistant")


class PlainPrompt(str):
    """A text that the model continues as it is, even if it has a chat template."""


@dataclass(frozen=True, kw_only=True)
class PromptTemplate:
    """How an item becomes chat messages.

    `messages` are pairs of a role and a template. `messages_column` names a column with the item's
    own conversation, which follows them. `plain` passes the text of the only message without a chat
    template.
    """

    messages: tuple[tuple[str, Template], ...] = ()
    messages_column: str = ""
    plain: bool = False

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that every item must have, without repetition."""
        names = [name for _, template in self.messages for name in template.columns]
        return tuple(
            dict.fromkeys([*names, *([self.messages_column] * bool(self.messages_column))])
        )

    def fill(
        self, columns: Mapping[str, object], examples: Sequence[Message] = ()
    ) -> list[Message]:
        """Return an item's messages; `examples` follow the leading system messages.

        Raises `ItemError` if a column is missing or does not hold a conversation.
        """
        filled = [{"role": role, "content": text.fill(columns)} for role, text in self.messages]
        if self.messages_column:
            filled += conversation(columns.get(self.messages_column), self.messages_column)
        # Chat templates expect system messages in front.
        front = next((n for n, m in enumerate(filled) if m["role"] != "system"), len(filled))
        return [*filled[:front], *examples, *filled[front:]]


def conversation(value: object, column: str) -> list[Message]:
    """Return the chat messages that a column holds: a list, or its JSON text.

    Raises `ItemError` that shows the first wrong message.
    """
    if isinstance(value, str):
        try:
            value = parse_json(value, keep_halves=True)
        except ValueError:
            value = None
    messages = value if isinstance(value, list) else []
    for message in messages:
        if (
            not isinstance(message, Mapping)
            or message.get("role") not in ROLES
            or not isinstance(message.get("content"), str)
        ):
            raise ItemError(
                f"The column '{column}' must hold messages with a role ({', '.join(ROLES)}) and a "
                f"content that is text, got {json.dumps(message, default=str)[:80]}."
            )
    if not messages:
        raise ItemError(
            f"The column '{column}' must hold at least one chat message, got {value!r}."
        )
    return [{"role": message["role"], "content": message["content"]} for message in messages]


def refuse_unusable(columns: Mapping[str, object], checks: Sequence[Check]) -> None:
    """Raise `ItemError` for an item that no model can read, or that a check cannot judge by."""
    refuse_halves(columns)
    for check in checks:
        try:
            if isinstance(check, BaseCheck):
                check.check_item(columns)
        except InputError as error:
            raise ItemError(str(error)) from None


def refuse_halves(columns: Mapping[str, object]) -> None:
    """Raise `ItemError` for a column with a half character, which no model can read."""
    for name, value in columns.items():
        if isinstance(value, str) and value.isascii() and name.isascii():
            continue
        if half := half_character(name) or half_character(value):
            raise ItemError(
                f"The column {name!r} must hold whole characters, got half of one, {half}. Write "
                "the text again."
            )


def with_feedback(messages: Sequence[Message], feedback: Mapping[str, object]) -> list[Message]:
    """Add the last draft and the reasons why it failed, as two turns of the conversation.

    `feedback` holds the `draft`, and `reasons` as a list.
    """
    reasons = feedback.get("reasons")
    lines = [f"- {reason}" for reason in reasons] if isinstance(reasons, list | tuple) else []
    request = "\n".join(["Write this reply again. What must change:", *lines])
    return [
        *messages,
        {"role": "assistant", "content": str(feedback.get("draft", ""))},
        {"role": "user", "content": request},
    ]
