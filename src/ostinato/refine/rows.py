"""The results of a loop as a list of rows, and as a table for pandas. Knows no model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from ostinato.arguments import require_type
from ostinato.errors import MissingExtra, RunError
from ostinato.journal import Run
from ostinato.loop import LaneResult, Loop
from ostinato.refine.export import RESULT_COLUMNS, flat, item_columns, named
from ostinato.refine.inputs import Row
from ostinato.refine.progress import is_watched, progress_of
from ostinato.refine.results import from_lane

if TYPE_CHECKING:
    import pandas

MISSING_TYPES = {"integer": "Int64", "boolean": "boolean"}
"""The types of pandas that hold whole numbers and truth values where some are missing."""


class Rows(list[Row]):
    """Results in the order of their items: a list of rows with the keys of a job's output."""

    def to_pandas(self) -> pandas.DataFrame:
        """Return the table of `to_pandas`."""
        return to_pandas(self)


def rows_of(loop: Loop, columns: Mapping[str, Row], progress: bool | None = None) -> Rows:
    """Run a loop of lanes to its end; return all results, those of its run among them.

    `columns` are the items' by their keys, in the order of the rows. `progress`: show it on
    standard error; None: in a terminal or a notebook only. Raises `RunError` for a loop without a
    run that has taken steps, as its results are gone.
    """
    require_type("progress", progress, bool | None)
    run = loop.recorded_as
    if run is None and loop.tick:
        raise RunError(
            f"A loop without a run must give its rows before its first step, got one at step "
            f"{loop.tick}. Do not iterate over it, or give it a name: run=…."
        )
    before = () if run is None else run.results()
    done = {key: LaneResult.from_json(row) for key, row in before}
    quiet = not (is_watched() if progress is None else progress)
    display = progress_of(len(columns), run, quiet=quiet)
    with loop, display:
        for step in loop:
            display.step(step)
            done |= {result.key: result for result in step.results}
    return Rows(
        from_lane(done[key], columns=row).to_json() for key, row in columns.items() if key in done
    )


def rows_of_run(run: Run) -> Rows:
    """Return the results of a run of a job or of `Refine`, finished or not, from its journal.

    In the order in which they were recorded, and without the items' columns: these are in the
    input. Raises `RunError` for a run of another kind.
    """
    if run.kind not in ("refine", "Refine"):
        raise RunError(
            f"The run must be of a refine job to have rows, got {run.name!r}, which is {run.kind}. "
            "Read its results with run.results()."
        )
    return Rows(from_lane(LaneResult.from_json(row)).to_json() for _, row in run.results())


def to_pandas(rows: Iterable[Row]) -> pandas.DataFrame:
    """Return rows of results as a table, with the columns of an export.

    The items' columns come after those of a result; one of the same name begins with `item.`.
    What is nested, such as `verdicts` and `drafts`, stays a list or mapping of Python.
    Raises `MissingExtra` where pandas is not installed.
    """
    pandas = load_pandas()
    rows = list(rows)
    made = [flat(row) for row in rows]
    own: list[Any] = [row["columns"] for row in rows]
    columns = {name: pandas.Series([row[name] for row in made]) for name in RESULT_COLUMNS}
    types = item_columns(own)
    for name, (shown, kind) in zip(types, named(types), strict=True):
        values = [row.get(name) for row in own]
        dtype = MISSING_TYPES.get(kind) if None in values else None
        columns[shown] = pandas.Series(values, dtype=dtype)
    return pandas.DataFrame(columns)


def load_pandas() -> Any:
    """Return the module `pandas`. Raises `MissingExtra` where it is not installed."""
    try:
        import pandas
    except ImportError:
        raise MissingExtra("A table for pandas", "pandas") from None
    return pandas
