"""Tables, cells and the fields of classes in Markdown."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import MISSING, Field
from typing import Any


def cell(text: str) -> str:
    """Return plain text as Markdown: signs that Markdown or HTML would take are escaped."""
    text = re.sub(r"\s+", " ", text).strip()
    # Code in back quotes is shown as it is; only what stands between is escaped.
    parts = re.split(r"(`[^`]*`)", text)
    escaped = (part if part.startswith("`") else _escaped(part) for part in parts)
    return "".join(escaped)


def _escaped(text: str) -> str:
    return re.sub(r"([*_<|\[\]])", r"\\\1", text)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table; its cells are Markdown already."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


TYPES = {
    "str": "text",
    "Path": "text",
    "Template": "text",
    "int": "integer",
    "float": "number",
    "bool": "true or false",
    "object": "anything",
    "PromptTemplate": "table",
    "Similarity": "text",
    "Unit": "text",
}


def type_of(spec: Field[Any]) -> str:
    """Return the type of a field as the type of a key in TOML."""
    name = str(spec.type).replace(" | None", "")
    if name.startswith("Literal["):
        return " or ".join(f"`{choice}`" for choice in name[8:-1].split(", "))
    if name.startswith("tuple[str"):
        return "list of texts"
    return TYPES.get(name, "table" if name.startswith(("dict", "Mapping")) else f"`{name}`")


def default_of(spec: Field[Any]) -> str:
    """Return the default of a field in words."""
    if spec.default_factory is not MISSING:
        return "none" if spec.default_factory in (tuple, dict, list) else "see its section"
    if spec.default is MISSING:
        return "required"
    if spec.default is None or spec.default in ("", ()):
        return "none"
    return f"`{spec.default!r}`"
