"""Templates: texts with `{column}` in them. Knows no model and no prompt."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

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

        texts = []
        for name, text in self._parts:
            if name is None:
                texts.append(text)
            elif name in columns:
                texts.append(shown(columns[name]))
            else:
                raise ItemError(
                    f"The template must name columns of the item, got '{name}'. "
                    f"It has: {', '.join(columns)}."
                )
        return "".join(texts)

    @cached_property
    def _parts(self) -> list[tuple[str | None, str]]:
        """The template in pieces: (a column's name, "") or (None, a text)."""
        parts: list[tuple[str | None, str]] = []
        end = 0
        for match in _PART.finditer(self.text):
            parts.append((None, self.text[end : match.start()]))
            braces = match[1] is None
            parts.append((None, match[0][0]) if braces else (match[1].strip(), ""))
            end = match.end()
        return [*parts, (None, self.text[end:])]


def shown(value: object) -> str:
    """Return a column's value as text: lists and tables as JSON, "" for None.

    Values that JSON does not have, such as dates, are written by `str`.
    """
    if isinstance(value, str):  # nearly always, and Mapping takes long to ask
        return str(value)
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
