"""Prompts: from an item to chat messages, with examples and the reasons of a failed draft.

Knows columns and messages; no tokenizer and no model.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from ostinato.checks import Template
from ostinato.errors import ItemError
from ostinato.refine.job.items import Item

Message = dict[str, str]
"""A chat message: its `role` and its `content`."""

ROLES = ("system", "user", "assistant")


class PlainPrompt(str):
    """A prompt that the model goes on with as it is, whatever chat template it has."""


@dataclass(frozen=True, kw_only=True)
class PromptTemplate:
    """How an item becomes chat messages.

    `messages` are pairs of a role and a template; `messages_column` names a column that holds the
    item's own conversation, which comes after them. `plain` gives the model the text of the only
    message as it is, without a chat template.
    """

    messages: tuple[tuple[str, Template], ...] = ()
    messages_column: str = ""
    plain: bool = False

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that every item must have."""
        names = [name for _, template in self.messages for name in template.columns]
        return tuple(
            dict.fromkeys([*names, *([self.messages_column] * bool(self.messages_column))])
        )

    def fill(
        self, columns: Mapping[str, object], examples: Sequence[Message] = ()
    ) -> list[Message]:
        """Return an item's messages; the examples stand after the system messages in front.

        Raises `ItemError` where a column is missing or its conversation is none.
        """
        filled = [{"role": role, "content": text.fill(columns)} for role, text in self.messages]
        if self.messages_column:
            filled += conversation(columns.get(self.messages_column), self.messages_column)
        front = next((n for n, m in enumerate(filled) if m["role"] != "system"), len(filled))
        return [*filled[:front], *examples, *filled[front:]]


def conversation(value: object, column: str) -> list[Message]:
    """Return the chat messages that a column holds: a list, or a text of JSON that is one."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
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


def bad_conversations(items: Sequence[Item], prompt: PromptTemplate) -> Iterator[str]:
    """Yield what is wrong with the items' own conversations, with their lines."""
    if not prompt.messages_column:
        return
    for item in items:
        try:
            conversation(item.columns.get(prompt.messages_column), prompt.messages_column)
        except ItemError as error:
            yield f"line {item.line}: {error}"


def with_feedback(messages: Sequence[Message], feedback: Mapping[str, object]) -> list[Message]:
    """Add the last draft and what to mend in it, as turns of the conversation.

    `feedback` holds the `draft` and the list of `reasons`.
    """
    reasons = feedback.get("reasons")
    lines = [f"- {reason}" for reason in reasons] if isinstance(reasons, list | tuple) else []
    request = "\n".join(["Write this reply again. What must change:", *lines])
    return [
        *messages,
        {"role": "assistant", "content": str(feedback.get("draft", ""))},
        {"role": "user", "content": request},
    ]
