"""What a loop does with its run before it goes on: find it, make it, note what is new."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

from ostinato.errors import InputError, RunError
from ostinato.loop.answers import OnStop, accept
from ostinato.loop.condition import Condition
from ostinato.loop.marks import Every
from ostinato.loop.stops import JSON

if TYPE_CHECKING:
    from ostinato.loop.driver import Driver
    from ostinato.loop.journal import Journal
    from ostinato.loop.run import Run


def settings(
    until: Condition, every: Every | None, keep: Literal["steps", "results"]
) -> dict[str, JSON]:
    """Return what a run tells of its loop."""
    return {
        "until": str(until),
        "checkpoint": None if every is None else {"steps": every.steps, "keep": every.keep},
        "keep": keep,
    }


def find_or_create(name: str, journal: Journal | None, kind: str, spec: Mapping[str, JSON]) -> Run:
    """Return the run of a name, made with `kind` and `spec` where there is none."""
    from ostinato.loop.journal import Journal

    journal = journal or Journal()
    return journal.find(name) or journal.create(name, kind=kind, spec=spec)


def note_condition(driver: Driver, until: Condition, spelling: str | None) -> None:
    """Journal that the run goes on under another condition than before."""
    before = driver.run.until or spelling
    if before is not None and before != str(until):
        driver.event("until", driver.run.tick, {"until": str(until), "was": before})
        driver.flush()


def keep_way(run: Run, way: str) -> None:
    """Record how a run's lanes compute, and hold it to that: bits differ between ways."""
    known = run.spec.get("way", way if run.tick else "")  # runs of older versions do not tell it
    if known == way:
        return
    if known and (run.tick or any(True for _ in run.results())):
        raise RunError(
            f"The run {run.name!r} must be computed as it was begun, {known}, got {way}. Compile "
            "the model, or not, as then (compile, --compile, --no-compile), or begin another run."
        )
    run.amend({"way": way})


def refuse_generator(run: Run) -> None:
    """Refuse to go on with a run that has steps and no saved state, as that of a generator."""
    if run.tick:
        raise RunError(
            f"The run {run.name!r} is of a generator, which cannot be resumed. "
            "Start another run, or write the process as a class with state_dict."
        )


def refuse_going_back(checkpoint: Every | None, on_stop: OnStop) -> None:
    """Refuse what a generator has no use for: to be saved, and to be brought back."""
    if checkpoint is not None or on_stop is not accept:
        raise InputError(
            "A generator can be neither saved nor brought back, so it takes no checkpoint= and "
            "no on_stop=. Write the process as a class with state_dict and load_state_dict."
        )


def saved_state(run: Run, tick: int) -> dict[str, object]:
    """Return the state that was saved at a tick. Raises `RunError` where it is gone."""
    found = run.load(tick=tick)
    if found is None or found[0].tick != tick:
        raise RunError(
            f"The run cannot go back to tick {tick}: its checkpoint is gone. "
            "Keep more of them with checkpoint=Every(steps, keep=...)."
        )
    return dict(found[1])
