"""Preference pairs of a job: each accepted reply beside the drafts that were discarded for it.

A row is that of TRL's preference format: `prompt`, `chosen` and `rejected`, as chat messages where
the prompt is a conversation. Knows no model and no training.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

from ostinato.journal import JSON
from ostinato.output_files import write_whole
from ostinato.refine.job.items import Item
from ostinato.refine.results import Draft, Result
from ostinato.refine.routing.router import Router, RouteSource

UNFINISHED = "unfinished"
"""The key of a row whose rejected text was left before its end: no end belongs behind it."""


def preference_pairs(
    results: Iterable[tuple[Result, Item]], router: Router
) -> Iterator[dict[str, JSON]]:
    """Yield a row for each discarded draft of each accepted reply that the model wrote.

    Each has the item's `id` and the `checks` that stopped the draft. A draft that is empty, or that
    the reply begins with, is left out: nothing of it was wrong.
    """
    for result, item in results:
        if not result.accepted or result.source is not RouteSource.MODEL:
            continue
        prompt: JSON = router.messages(item.columns, {})  # type: ignore[assignment]
        for text, draft in _discarded(result).items():
            yield {
                "id": result.id,
                "prompt": prompt,
                "chosen": _as(prompt, result.reply),
                "rejected": _as(prompt, text),
                "checks": list(draft.check),
                UNFINISHED: not draft.verdicts,
            }


def write_pairs(path: Path, results: Iterable[tuple[Result, Item]], router: Router) -> int:
    """Write the pairs as JSONL; return their number. A crash leaves the old file or the new one.

    Raises `OutputError` where the file cannot be written.
    """
    count = 0

    def lines() -> Iterator[str]:
        nonlocal count
        for row in preference_pairs(results, router):
            count += 1
            yield json.dumps(row, ensure_ascii=False) + "\n"

    write_whole(path, lines())
    return count


def _discarded(result: Result) -> dict[str, Draft]:
    """Return the discarded drafts by their texts, each once."""
    found: dict[str, Draft] = {}
    for draft in result.drafts[:-1]:  # the last one was accepted
        text = draft.before + draft.taken_back
        if text.strip() and not result.reply.startswith(text):
            found.setdefault(text, draft)
    return found


def _as(prompt: JSON, text: str) -> JSON:
    return text if isinstance(prompt, str) else [{"role": "assistant", "content": text}]
