"""The keys of items that have no id: what they hold, never where they stand."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable


def digest(value: object) -> str:
    """Return the hash of a JSON value, the same for equal values."""
    text = json.dumps(value, ensure_ascii=False, sort_keys=True, default=str)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def content_keys(items: Iterable[object]) -> list[str]:
    """Return the hash of each item's content, with the number of its occurrence."""
    counts: dict[str, int] = {}
    keys = []
    for item in items:
        content = digest(item)[:12]
        counts[content] = counts.get(content, 0) + 1
        keys.append(f"{content}-{counts[content]}")
    return keys
