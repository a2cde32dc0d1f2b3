"""One row of a job's input. Knows no prompt, no model, no file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Item:
    """One row of the input.

    `key` is its id, or the hash of its content and its occurrence: never the row's number, so that
    rows may move. `index` is its position in the input, from 0; `line` the first line of it in the
    file, from 1.
    """

    key: str
    index: int
    columns: Mapping[str, object]
    line: int = 0
