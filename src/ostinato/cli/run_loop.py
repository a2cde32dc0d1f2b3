"""Running a loop for a command: its exit codes, and the results of finished items.

Knows no family.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from enum import IntEnum
from typing import TYPE_CHECKING, NoReturn

import click

from ostinato.errors import InputError

if TYPE_CHECKING:
    from ostinato.cli.following import View
    from ostinato.journal import Run
    from ostinato.loop import ItemsWork, LaneResult, Step

RESUME = "Run the same command again to resume."


class Exit(IntEnum):
    """What the exit code of a command means."""

    DONE = 0  # everything was accepted, or the training ended as planned
    NOT_ALL = 1  # some outputs were not accepted or not written, or a training diverged
    BAD_INPUT = 2  # an argument or a file is wrong
    BUDGET = 3  # the job's budget ended with items unfinished
    INTERRUPTED = 130  # Ctrl-C or SIGTERM; the same command resumes


# Results ----------------------------------------------------------------------------------------


def results_of(
    work: ItemsWork, count: int, view: View, *, show: Callable[[Step], None] | None = None
) -> list[LaneResult]:
    """Run the loop over `count` items until it ends or a signal ends it; return results by index.

    Its progress is shown, or what `show` makes of each step. A recorded run returns the results of
    earlier sessions too.
    """
    from ostinato.cli.following import display_for, followed
    from ostinato.loop import ends_by_signal
    from ostinato.refine import tally_of

    loop = work.loop
    alone = show is not None and not view.sends_events
    display = display_for(tally_of(count, loop.recorded_as), view, alone=alone)
    with ends_by_signal(loop), followed(loop, view, display), loop:
        for step in loop:
            work.watch(step)
            display.step(step)
            if show is not None:
                show(step)
    return work.results


def refuse_errors(results: Sequence[LaneResult]) -> None:
    """Raise `InputError` with the reason of the first item that could not be worked on."""
    for result in results:
        if result.stopped.kind == "error":
            raise InputError(result.stopped.sentence)


def exit_interrupted(done: int, count: int, items: str, run: Run | None) -> NoReturn:
    """Say how many items are done and how to resume, and exit with 130."""
    from ostinato.cli.recording import way_back

    click.echo(f"{done} of {count} {items} are done. {way_back(run)}", err=True)
    sys.exit(Exit.INTERRUPTED)
