"""Templates: texts with `{column}` in them. Knows no model and no prompt."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass

from ostinato.errors import InputError, ItemError

_PART = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")


@dataclass(frozen=True)
class Template:
    """A text in which `{name}` stands for an item's column; `{{` and `}}` are plain braces.

    No attributes, formats or code, unlike `str.format`: a template may come from a stranger. Raises
    `InputError` for a single brace, and for empty braces.
    """

    text: str

    def __post_init__(self) -> None:
        for match in _PART.finditer(self.text):
            if match[1] is None:
                if len(match[0]) == 1:
                    raise InputError(
                        f"A brace in a template must belong to {{column}} or be doubled, got "
                        f"{_around(self.text, match.start())!r}. Write {match[0] * 2} for it."
                    )
            elif not match[1].strip():
                raise InputError(
                    f"The braces of a template must hold a column's name, got "
                    f"{_around(self.text, match.start())!r}. Name a column, or double the braces."
                )

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns in the template, each once, in order of appearance."""
        names = (match[1].strip() for match in _PART.finditer(self.text) if match[1] is not None)
        return tuple(dict.fromkeys(names))

    def fill(self, columns: Mapping[str, object]) -> str:
        """Return the text with the item's columns in it. Raises `ItemError` for a missing one."""

        def part(match: re.Match[str]) -> str:
            if match[1] is None:
                return match[0][0]
            name = match[1].strip()
            if name not in columns:
                raise ItemError(
                    f"The template must name columns of the item, got '{name}'. "
                    f"It has: {', '.join(columns)}."
                )
            return shown(columns[name])

        return _PART.sub(part, self.text)


def shown(value: object) -> str:
    """Return a column's value as text: lists and tables as JSON, "" for None.

    Values that JSON does not have, such as dates, are written by `str`.
    """
    if value is None:
        return ""
    if isinstance(value, Mapping | list | tuple | bool | int | float):
        return json.dumps(_plain(value), ensure_ascii=False, default=str)
    return str(value)


def _plain(value: object) -> object:
    """Return tables as dictionaries with texts for keys, which JSON demands."""
    if isinstance(value, Mapping):
        return {str(name): _plain(one) for name, one in value.items()}
    return [_plain(one) for one in value] if isinstance(value, list | tuple) else value


def _around(text: str, at: int) -> str:
    return text[max(0, at - 12) : at + 12]
