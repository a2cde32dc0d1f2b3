"""What a loop over items has finished, also where its run did so before."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ostinato.journal import Run
    from ostinato.loop import Loop, Step


def rows_of(
    loop: Loop,
    run_name: str | None,
    *,
    watch: Callable[[Step], None] | None = None,
    read: Callable[[Run], None] | None = None,
) -> list[dict[str, Any]]:
    """Run the loop, until a signal ends it; return the rows of all finished items, in their order.

    `watch` is called with every step. With a run its journal is asked for what was finished before,
    and `read` is called with it.
    """
    from ostinato.cli.signals import ends_by_signal
    from ostinato.journal import Journal

    rows: dict[str, dict[str, Any]] = {}
    with ends_by_signal(loop), loop:
        for step in loop:
            if watch is not None:
                watch(step)
            rows |= {key: dict(row) for key, row in step.results}
    if run_name is not None:
        with Journal() as journal:
            run = journal.get(run_name)
            rows = dict(run.results())
            if read is not None:
                read(run)
    return sorted(rows.values(), key=lambda row: int(row["index"]))
