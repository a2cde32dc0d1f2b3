"""Reference pages made from classes: job keys, conditions, checks and strategies, each complete."""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Callable, Mapping
from dataclasses import Field, fields
from pathlib import Path
from typing import Any, TypeVar, cast

import ostinato
from ostinato.checks import KINDS, BaseCheck, parameters
from ostinato.loop import Condition
from ostinato.loop.conditions.parser import NAMES
from ostinato.refine import STRATEGIES
from recipes.site.job_keys import job_keys_page
from recipes.site.markdown import cell, default_of, table, type_of

ROOT = Path(__file__).parents[2]

T = TypeVar("T")


def table_pages() -> dict[str, str]:
    """Return the pages, by path."""
    return {
        "reference/job-keys.md": job_keys_page((ROOT / "docs" / "jobs.md").read_text("utf-8")),
        "reference/conditions.md": conditions_page(),
        "reference/checks.md": checks_page(),
        "reference/strategies.md": strategies_page(),
    }


def conditions() -> list[type[Condition]]:
    """Return the conditions that can be written as a text, sorted by name."""
    for module in pkgutil.walk_packages(ostinato.__path__, "ostinato."):
        if module.name.endswith(".conditions"):  # families bring conditions of their own
            importlib.import_module(module.name)
    return [NAMES[name] for name in sorted(NAMES)]


def conditions_page() -> str:
    """Return the page of the conditions."""
    intro = (
        "These conditions can be written in Python, and as a text for `--until` and `--each`. "
        "[The loop](../loop.md#when-it-stops) shows them at work. Combine them with `|` and `&`."
    )
    return _page("Conditions", intro, {kind.__name__: kind for kind in conditions()}, _fields)


def checks_page() -> str:
    """Return the page of the checks."""
    intro = (
        "The keys of a `[[check]]` table by kind, which are the fields of the class in Python. "
        "[Checks](../checks.md) has an example of each. Each takes a `name` too."
    )

    def keys(kind: type[BaseCheck]) -> list[str]:
        return [key for key in parameters(kind.kind) if key != "name"]

    return _page("Checks", intro, KINDS, keys)


def strategies_page() -> str:
    """Return the page of the strategies."""
    intro = (
        "The keys of `[strategy]` by kind, which are the fields of the class in Python. "
        "[Strategies](../strategies.md) says which one to take."
    )
    return _page("Strategies", intro, STRATEGIES, _fields)


def _fields(kind: type[Any]) -> list[str]:
    return [spec.name for spec in fields(kind) if spec.init]


def _page(
    title: str,
    intro: str,
    kinds: Mapping[str, type[T]],
    keys: Callable[[type[T]], list[str]],
) -> str:
    """Return a page with a section for each class: what it says of itself, and its `keys`."""
    sections = [f"# {title}\n\n{intro}\n"]
    for name, kind in sorted(kinds.items()):
        own: dict[str, Field[Any]] = {spec.name: spec for spec in fields(cast(Any, kind))}
        rows = [_row(key, own.get(key)) for key in keys(kind)]
        listed = table(("name", "type", "default"), rows) if rows else "It has no options."
        sections.append(f"## {name}\n\n{summary(kind)}\n\n{listed}\n")
    return "\n".join(sections)


def _row(key: str, spec: Field[object] | None) -> tuple[str, str, str]:
    if spec is None:  # `file`, which is no field: it fills one
        return f"`{key}`", "text", "none"
    return f"`{key}`", type_of(spec), default_of(spec)


def summary(kind: type) -> str:
    """Return the docstring of a class as Markdown, without the lines of its source."""
    text = re.sub(r"\n {4}", "\n", kind.__doc__ or "").strip()
    return "\n\n".join(cell(paragraph) for paragraph in text.split("\n\n"))
