"""What a training does after it diverged: go back, at a lower rate or without the bad batches.

Knows no network and no optimizer: only the names of edits, as trainings have them.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from ostinato.journal import Stopped
from ostinato.loop import Action, Edits, GiveUp, GoBack, History, OnStop
from ostinato.loop import go_back as go_back_with

ADVICE = "Lower the learning rate, or go back and skip the batch."


def go_back(
    *,
    kinds: tuple[str, ...] = ("diverged",),
    times: int = 3,
    to: int | None = None,
    skip: int = 0,
    advice: str = ADVICE,
    **edits: object,
) -> OnStop:
    """Make a strategy that goes back to a checkpoint, at most `times` times, with `edits` applied.

    It is the last one up to position `to`; by default, the last one before the trouble began, as
    far as the stop knows that. `go_back(lr_scale=0.5)` halves the learning rate after the loss has
    diverged. A checkpoint knows nothing of what was tried after it: so each time the loop goes back
    to the same one, the edits of the time before are applied again, and one named `…_scale` once
    more (0.5, 0.25, 0.125). `skip=1` leaves out the batch of the step that stopped (2: and of the
    step after it): the process gets `skip_steps`, a pair of a position and a number of steps for
    each time. `advice` is what a person may try when that did not help.
    """
    named = {
        name: partial(_once_more, name, value) if name.endswith("_scale") else value
        for name, value in edits.items()
    }
    if skip:
        named["skip_steps"] = partial(_one_step_more, skip)
    strategy = go_back_with(kinds=kinds, times=times, to=to, **named)

    def advising(stopped: Stopped, history: History) -> Action:
        action = strategy(stopped, history)
        if isinstance(action, GoBack):
            known = history if action.to is None else history.returning(action.to)
            return replace(action, edits={**_in_force(known), **action.edits})
        if isinstance(action, GiveUp) and stopped.kind == "diverged":
            return replace(action, reason=f"{action.reason} {advice}".rstrip())
        return action

    return advising


def _in_force(history: History) -> Edits:
    """Return the edits of the last time since the checkpoint, which knows nothing of them."""
    since = history.since_checkpoint()
    return since[-1].edits if since else {}


def _once_more(name: str, value: object, stopped: Stopped, history: History) -> object:
    """Return a factor times those that were applied since the checkpoint."""
    before = _in_force(history).get(name, 1.0)
    return before * value if isinstance(value, float) and isinstance(before, float) else value


def _one_step_more(skip: int, stopped: Stopped, history: History) -> object:
    """Return the steps to skip: those of the times before, and now the one that stopped."""
    before = _in_force(history).get("skip_steps")
    pairs = before if isinstance(before, list) else []
    return [*pairs, [history.position, skip]]
