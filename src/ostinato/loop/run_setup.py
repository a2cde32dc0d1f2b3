"""What a loop does with its run before the first step: find or create it, record what is new."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Literal

from ostinato.errors import InputError, RunError
from ostinato.journal import JSON, Journal, Run, RunSession, StopKind, Stopped
from ostinato.loop.actions import OnStop, accept
from ostinato.loop.checkpoint_schedule import CheckpointSchedule
from ostinato.loop.conditions.base import Condition
from ostinato.loop.process import Report


def loop_settings(
    until: Condition, every: CheckpointSchedule | None, keep: Literal["steps", "results"]
) -> dict[str, JSON]:
    """Return what is recorded of a loop with the run that it creates."""
    return {
        "until": str(until),
        "checkpoint": None if every is None else {"steps": every.steps, "keep": every.keep},
        "keep": keep,
    }


def find_or_create(name: str, journal: Journal | None, kind: str, spec: Mapping[str, JSON]) -> Run:
    """Return the run of a name, created with `kind` and `spec` where there is none."""
    journal = journal or Journal()
    return journal.find(name) or journal.create(name, kind=kind, spec=spec)


def record_condition(session: RunSession, until: Condition, spelling: str | None) -> None:
    """Journal that the run is resumed under another condition than before."""
    before = session.run.until or spelling
    if before is not None and before != str(until):
        session.event("until", session.run.tick, {"until": str(until), "was": before})
        session.flush()


def record_known_edits(session: RunSession, process: object) -> None:
    """Record which edits a process knows, so that a branch with others is refused when made."""
    known = getattr(process, "known_edits", None)
    if known is not None and session.run.spec.get("known_edits") != known:
        session.amend({"known_edits": dict(known)})


def compute_mode(part: object) -> str:
    """Return how a process or a judge computes; "" where its bits do not depend on it."""
    return str(getattr(part, "compute_mode", ""))


def use_recorded_modes(session: RunSession, computing: Mapping[str, object]) -> None:
    """Compute in a run's recorded modes, where a part may choose. Before the first step."""
    for key, part in computing.items():
        recorded = str(session.run.spec.get(key, ""))
        use = getattr(part, "use_compute_mode", None)
        if recorded and use is not None:
            use(recorded)


def keep_compute_modes(session: RunSession, computing: Mapping[str, object]) -> None:
    """Record a run's compute modes. Raises `RunError` for another than a recorded one.

    The bits of a result differ between modes.
    """
    for key, part in computing.items():
        _keep_compute_mode(session, key, compute_mode(part))


_MENDS = {
    "compute_mode": "Give the same --compile, --no-compile, --int8, --int4 and --device as before",
    "judge_mode": "Resume it with the same judges, on the machine that it was started on",
}


def _keep_compute_mode(session: RunSession, key: str, mode: str) -> None:
    run = session.run
    # Runs of older versions have no mode recorded: they take the one they are resumed in. So does a
    # run that has computed nothing yet.
    known = str(run.spec.get(key, ""))
    if known == mode:
        return
    begun = run.tick or any(True for _ in run.results())
    if known and begun and not _has_more(mode, known):
        raise RunError(
            f"The run {run.name!r} must be resumed in its {key.replace('_', ' ')}, {known}, got "
            f"{mode}. {_MENDS[key]}, or start another run."
        )
    session.amend({key: mode})


def _has_more(mode: str, known: str) -> bool:
    """Return whether a mode is the known one of several models, with that of others that came."""
    try:
        now, before = json.loads(mode), json.loads(known)
    except ValueError:
        return False
    both = isinstance(now, dict) and isinstance(before, dict)
    return both and before.items() <= now.items()


def recorded_report(run: Run, tick: int) -> Report:
    """Return the report of a step of a run or of those it comes from; empty if not recorded."""
    record = next(run.steps(tick - 1), None)
    if record is not None and record.tick == tick:
        return record.report
    origin, parent = run.parent, run.parent_run()
    return {} if parent is None or not origin or tick > origin[1] else recorded_report(parent, tick)


def begins_at(run: Run, tick: int) -> bool:
    """Return whether a run is a branch that has taken no step of its own yet."""
    return run.parent is not None and run.parent[1] == tick


def end_of_generator(run: Run, until: Condition) -> Stopped:
    """Return why a run of a generator has stopped for good.

    Raises `RunError` where steps are left to take: a generator has no saved state.
    """
    now = run.now()
    # A pause has a reason too, and an error, but neither is an end.
    ended = now.stopped if now.status == "stopped" else None
    if ended is not None and (ended.kind is StopKind.ENDED or run.until == str(until)):
        return ended
    raise RunError(
        f"The run {run.name!r} is of a generator, which cannot be resumed. "
        "Start another run, or write the process as a class with state_dict."
    )


def refuse_going_back(checkpoint: CheckpointSchedule | None, on_stop: OnStop) -> None:
    """Refuse to save a generator or to go back with one: its frame cannot be copied."""
    if checkpoint is not None or on_stop is not accept:
        raise InputError(
            "A generator can neither be saved nor go back, so it takes no checkpoint= and no "
            "on_stop=. Write the process as a class with state_dict and load_state_dict."
        )


def saved_state(run: Run, tick: int) -> dict[str, object]:
    """Return the state that was saved at a tick. Raises `RunError` where it is gone."""
    found = run.load(tick=tick)
    if found is None or found[0].tick != tick:
        raise RunError(
            f"The run cannot go back to tick {tick}: its checkpoint is gone. "
            "Keep more of them with checkpoint=CheckpointSchedule(steps, keep=...)."
        )
    return dict(found[1])
