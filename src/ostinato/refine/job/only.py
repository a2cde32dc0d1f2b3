"""Which items `--only` works on again: those of a run that were given up or failed.

The others are taken over as they are, though a new run may have another seed, strategy or model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

from ostinato.errors import InputError
from ostinato.journal import JSON, Difference, Journal, Run, StopKind
from ostinato.refine.job.config import Job

Only = Literal["failed", "errors", "given-up"]
"""`failed` are both: the errors, and the items that were given up."""

ONLY: tuple[Only, ...] = get_args(Only)

SPEC_KEY = "only"
"""The entry of a run's spec that says which items of which run it works on again."""


def works_again(row: Mapping[str, Any], only: Only) -> bool:
    """Return whether an item is worked on again, by its result row."""
    error: bool = row["stopped"]["kind"] == StopKind.ERROR.value
    if only == "errors":
        return error
    return not row["accepted"] and (only == "failed" or not error)


def require_base(job: Job, run: Run | None, changed: Sequence[Difference]) -> Run:
    """Return the run whose items are worked on again; `changed` are the settings that differ.

    Raises `InputError` where there is none, and for other checks: its accepted replies would then
    not be accepted replies of the job.
    """
    if run is None:
        raise InputError(
            f"--only must come after a run of {job.file.name} with the output {job.output.name}, "
            f"got none. Run it first: ostinato refine {job.file.name}"
        )
    if any(each.field.partition(".")[0] in ("checks", "order") for each in changed):
        raise InputError(
            f"The checks of {job.file.name} must be those of its run {run.name!r} for --only, got "
            "changed ones. Write every reply by the new ones with --update."
        )
    return run


def only_spec(only: Only, base: Run) -> dict[str, JSON]:
    """Return the entry of the spec of a new run that takes over results of `base`."""
    return {SPEC_KEY: {"which": only, "run": base.name, "id": base.id}}


def base_of(journal: Journal, run: Run) -> Run | None:
    """Return the run that a run of `--only` takes results over from; None if it was deleted."""
    entry = run.spec[SPEC_KEY]
    assert isinstance(entry, dict)
    base = journal.find(str(entry.get("run")))
    return base if base is not None and base.id == entry.get("id") else None


def works_on(run: Run) -> Only | None:
    """Return which items a run works on again; None for a run of all items."""
    entry = run.spec.get(SPEC_KEY)
    which = entry.get("which") if isinstance(entry, dict) else None
    return next((only for only in ONLY if only == which), None)
