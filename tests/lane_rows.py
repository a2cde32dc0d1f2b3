"""The rows of a `Refine` as its lanes make them, with everything that was spent."""

from __future__ import annotations

from typing import Any

from ostinato.refine import Refine


def lane_rows(refine: Refine) -> list[dict[str, Any]]:
    """Run to the end without a journal; return the rows of the lanes in the order of the items."""
    rows = [one.to_json() for step in refine.loop() for one in step.results]
    return sorted(rows, key=lambda row: int(row["index"]))
