"""What a row of training data holds: a text, a prompt with its completion, or a dialogue.

Values keep their types: null is absent, and what is no text is refused. Knows no tokenizer.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ostinato.errors import InputError

Messages = Sequence[Mapping[str, Any]]
SHOWN = 40  # characters of a wrong value in a message


@dataclass(frozen=True, slots=True)
class PlainText:
    """A text to learn as a whole."""

    text: str


@dataclass(frozen=True, slots=True)
class Completion:
    """A text to learn, and the one that it continues, which may be empty."""

    prompt: str
    completion: str


@dataclass(frozen=True, slots=True)
class Dialogue:
    """Messages with `role` and `content`, of which the assistant's are learned."""

    messages: Messages


def parse_row(row: Mapping[str, Any], where: str) -> PlainText | Completion | Dialogue:
    """Return what a row holds. Raises `InputError` that begins with `where`.

    `messages` count before `prompt` and `completion`, and these before `text`. A prompt and a
    completion that are lists of messages are one dialogue.
    """
    present = {name: value for name, value in row.items() if value is not None}
    if "messages" in present:
        return Dialogue(_messages(present["messages"], f"{where}: 'messages'"))
    if "completion" in present:
        return _completion(present.get("prompt", ""), present["completion"], where)
    if "text" in present:
        return PlainText(_text(present["text"], f"{where}: 'text'"))
    if "prompt" in present and "completion" in row:
        raise InputError(
            f"{where}: 'completion' must be text or messages, got null. Write what the model is to "
            "learn, or leave out the row."
        )
    names = ", ".join(f"{name} (null)" if row[name] is None else name for name in sorted(row))
    raise InputError(
        f"{where}, must hold 'text', 'messages', or 'prompt' and 'completion', got "
        f"{names or 'nothing'}. Rename the fields, or leave out the row."
    )


def _completion(prompt: object, completion: object, where: str) -> Completion | Dialogue:
    if isinstance(completion, list):
        if isinstance(prompt, str) and prompt:
            raise InputError(
                f"{where}: 'prompt' must be a list of messages as 'completion' is, got "
                f"{_shown(prompt)}. Give both as texts or both as messages."
            )
        before = _messages(prompt, f"{where}: 'prompt'") if prompt else ()
        return Dialogue([*before, *_messages(completion, f"{where}: 'completion'")])
    return Completion(
        _text(prompt, f"{where}: 'prompt'"), _text(completion, f"{where}: 'completion'")
    )


def _text(value: object, what: str) -> str:
    if not isinstance(value, str):
        fix = f"Write {_shown(str(value))} to learn it as text." if _is_plain(value) else ""
        raise InputError(f"{what} must be text, got {_shown(value)}. {fix}".rstrip())
    return value


def _is_plain(value: object) -> bool:
    return isinstance(value, bool | int | float)


def _messages(value: object, what: str) -> Messages:
    if not isinstance(value, list) or not all(isinstance(one, Mapping) for one in value):
        raise InputError(
            f"{what} must be a list of objects with role and content, got {_shown(value)}."
        )
    return [_message(one, f"{what}, message {number}") for number, one in enumerate(value, 1)]


def _message(message: Mapping[str, Any], what: str) -> Mapping[str, Any]:
    """Return a message whose content is text, also where the row has it in parts."""
    if not isinstance(message.get("role"), str):
        raise InputError(
            f"{what}: 'role' must be text, got {_shown(message.get('role'))}. "
            "Name who speaks: system, user or assistant."
        )
    content = message.get("content")
    if isinstance(content, list):
        content = "".join(_part(part, what) for part in content)
    return {**message, "content": _text(content, f"{what}: 'content'")}


def _part(part: object, what: str) -> str:
    """Return the text of a part of a content, as OpenAI's format has them."""
    if isinstance(part, Mapping) and part.get("type", "text") == "text" and "text" in part:
        part = part["text"]
    if not isinstance(part, str):
        raise InputError(
            f"{what}: 'content' must be text or a list of text parts, got {_shown(part)} in it. "
            "Leave out images and sounds."
        )
    return part


def _shown(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"
