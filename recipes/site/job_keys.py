"""The page of a job's keys: types and defaults from the classes, the words from docs/jobs.md."""

from __future__ import annotations

import re
from dataclasses import Field, fields
from typing import NamedTuple

from ostinato.refine.job.config import Budgets, Job, SamplingSettings
from ostinato.refine.routing.cases import CaseSettings
from ostinato.refine.routing.rules import Rule
from ostinato.remote import Server
from recipes.site.markdown import default_of, table, type_of

TOP = "The top of the file"

SECTIONS: dict[str, type] = {
    TOP: Job,
    "[[rule]]": Rule,
    "[cases]": CaseSettings,
    "[sampling]": SamplingSettings,
    "[budget]": Budgets,
    "[server]": Server,
}
"""The sections whose keys are the fields of a class."""

NO_KEYS = {
    Job: {"file", "choices", "elsewhere", "prompt", "checks", "server", "rules", "cases"}
    | {"strategy", "sampling", "max_new_tokens", "budgets"},
    Server: {"url", "model"},
}
"""Fields that are no keys: sections of their own, and what only the command line sets."""

ROW = re.compile(r"^\| (`[a-z_`, ]+`) \| ([^|\n]+) \|(?: ([^|\n]+) \|)?", re.M)
HEADING = re.compile(r"^### `(\[+\w+\]+)`$", re.M)


class Words(NamedTuple):
    """What the guide says of a key; `default` is empty where it says nothing of one."""

    text: str
    default: str


def job_keys_page(guide: str) -> str:
    """Return the page. Raises `KeyError` for a key that the guide does not describe."""
    words = words_of(guide)
    sections = [
        "# Job keys\n\nEvery key of a job file with its type and default. [Jobs](../jobs.md) "
        "explains them. [Checks](checks.md) and [strategies](strategies.md) have pages of their "
        "own.\n"
    ]
    for title, kind in SECTIONS.items():
        own = [spec for spec in fields(kind) if spec.name not in NO_KEYS.get(kind, set())]
        if kind is SamplingSettings:  # a key of this section, though a field of the job
            own += [spec for spec in fields(Job) if spec.name == "max_new_tokens"]
        rows = [_row(spec, words[title][spec.name]) for spec in own]
        head = ("key", "what it is", "type", "default")
        sections.append(f"## {title}\n\n{table(head, rows)}\n")
    prompt = [(f"`{key}`", key_words.text) for key, key_words in words["[prompt]"].items()]
    sections.insert(2, f"## [prompt]\n\n{table(('key', 'what it is'), prompt)}\n")
    return "\n".join(sections).replace("](#", "](../jobs.md#").replace("](speed", "](../speed")


def _row(spec: Field[object], words: Words) -> tuple[str, str, str, str]:
    default = default_of(spec)
    if default in ("required", "none"):  # some defaults are made while the file is read
        default = words.default or default
    return f"`{spec.name}`", words.text, type_of(spec), default


def words_of(guide: str) -> dict[str, dict[str, Words]]:
    """Return what docs/jobs.md says of each key, by section."""
    whole = guide.partition("## The job file, key by key")[2].partition("\n## ")[0]
    top, *parts = HEADING.split(whole)
    named = dict(zip(parts[::2], parts[1::2], strict=True))
    words: dict[str, dict[str, Words]] = {}
    for title, part in {TOP: top, **named}.items():
        found = words.setdefault(title, {})
        for names, text, default in ROW.findall(part):
            for key in re.findall(r"`(\w+)`", names):
                text, _, told = text.partition("; default ")
                found.setdefault(key, Words(text, default or told))  # later tables explain values
    return words
