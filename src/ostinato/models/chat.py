"""Conversations as text: the checkpoint's template in a sandbox, and a guard for the messages.

Knows no tokenizer.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from ostinato.errors import InputError, ModelError


class ChatTemplate:
    """A jinja template with the functions that the Hugging Face layout provides to it."""

    def __init__(self, source: str) -> None:
        """Compile `source`. Raises `ModelError` where it is not a template."""
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols, _Generation]
        )
        environment.filters["tojson"] = _to_json
        environment.globals["raise_exception"] = _raise_exception
        environment.globals["strftime_now"] = _strftime_now
        try:
            self._template = environment.from_string(source)
        except jinja2.TemplateError as error:
            raise ModelError(
                f"chat_template must be a jinja template, got: {error}. "
                "Fix tokenizer_config.json or chat_template.jinja."
            ) from error

    def render(self, messages: Sequence[Mapping[str, Any]], values: Mapping[str, Any]) -> str:
        """Return the conversation as text. Raises `InputError` where the template refuses it."""
        for i, message in enumerate(messages):
            _check_message(i, message)
        try:
            return self._template.render(messages=messages, **values)
        except Exception as error:  # a template is a program: it may fail like one
            reason = str(error) if isinstance(error, jinja2.TemplateError) else repr(error)
            raise InputError(
                f"messages must be a conversation that the chat template takes, got: {reason}. "
                "Give each a role and content, with the roles in the order of the model's tuning."
            ) from error


class _Generation(Extension):
    """Support `{% generation %}`: training templates mark the model's text; here it is kept."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: Parser) -> nodes.Node | list[nodes.Node]:
        """Return the statements between the two tags."""
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _check_message(index: int, message: Mapping[str, Any]) -> None:
    for key in ("role", "content"):
        value = message.get(key)
        if not isinstance(value, str):
            kind = "none" if value is None else type(value).__name__
            raise InputError(
                f"{key} of message {index} must be text, got {kind}. Give each message a role "
                "(system, user or assistant) and content."
            )


class Guard:
    """Break up whatever in messages could be read as (part of) a control token.

    The guard inserts a mark that occurs nowhere else: after the first character of anything that
    starts like a control token, and before the last of anything that ends like one. Then neither
    the text nor its joints with the template can spell one. `lift` removes the marks once the text
    is split at the true control tokens.
    """

    def __init__(self, specials: Iterable[str], messages: Sequence[Mapping[str, Any]]) -> None:
        # Two characters: one alone, such as "<", is ordinary text.
        self._heads = {s[:2] for s in specials if s}
        self._tails = {s[-2:] for s in specials if s}
        self.mark = _unused_character(json.dumps(list(messages), ensure_ascii=False, default=str))
        self.messages = [self._guarded(message) for message in messages]

    def lift(self, text: str) -> str:
        """Return `text` without marks."""
        return text.replace(self.mark, "")

    def _guarded(self, value: Any) -> Any:
        if isinstance(value, str):
            return self._marked(value)
        if isinstance(value, Mapping):
            return {key: self._guarded(inner) for key, inner in value.items()}
        if isinstance(value, list | tuple):
            return [self._guarded(inner) for inner in value]
        return value

    def _marked(self, text: str) -> str:
        if not any(head[:1] in text for head in self._heads) and not any(
            tail[-1:] in text for tail in self._tails
        ):
            return text
        # A template may trim the text, and join its first or last character to its own text: there
        # one matching character is enough, elsewhere two.
        first, last = _edges(text)
        out = []
        for i, character in enumerate(text):
            if any(
                text[i - 1 : i + 1] == t if i > first else character == t[-1:] for t in self._tails
            ):
                out.append(self.mark)
            out.append(character)
            if any(text[i : i + 2] == h if i < last else character == h[:1] for h in self._heads):
                out.append(self.mark)
        return "".join(out)


def _edges(text: str) -> tuple[int, int]:
    """Return the indices of the first and last characters that trimming would leave."""
    return len(text) - len(text.lstrip()), len(text.rstrip()) - 1


def _unused_character(text: str) -> str:
    """Return a private-use character that `text` does not contain."""
    return next(c for c in map(chr, range(0xF0000, 0xFFFFE)) if c not in text)


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Return JSON without the HTML escapes of jinja's own filter."""
    return json.dumps(
        value,
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
    )


def _raise_exception(message: str) -> None:
    raise jinja2.TemplateError(message)


def _strftime_now(pattern: str) -> str:
    return datetime.now().strftime(pattern)
