"""Functions that the command line makes processes with, in the tests of runs."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from toys import Walk

from ostinato.journal import Journal
from ostinato.loop import CheckpointSchedule, Loop, OnStop, Report, Step, Steps, accept


class SlowWalk(Walk):
    """A walk whose steps leave time to ask something of it."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds = seconds

    def step(self) -> Report:
        time.sleep(self.seconds)
        return super().step()


def walk(steps: int, seconds: float = 0.0) -> tuple[Walk, object, OnStop]:
    """Return a walk of so many steps."""
    return SlowWalk(seconds), Steps(steps), accept


def walk_far(far: float) -> tuple[Walk, object, OnStop]:
    """Return a walk that ends by a callable."""

    def is_far(step: Step) -> bool:
        return abs(float(str(step.report["place"]))) > far

    return Walk(), is_far, accept


class ManyPlaces(Walk):
    """A walk that reports several places in a step, and ends by itself after five."""

    def step(self) -> Report:
        report = super().step()
        end = {"ended": "It is there."} if float(str(report["epoch"])) >= 0.5 else {}
        return {"return": [float(n) for n in range(64)], "few": [0.5, 1.5], **report, **end}


def walk_to_its_end() -> tuple[Walk, None, OnStop]:
    """Return a walk without a condition."""
    return ManyPlaces(), None, accept


def no_tuple() -> object:
    """Return what no factory may."""
    return Walk()


def begin(journal: Path, name: str, steps: int, seconds: float = 0.0) -> Loop:
    """Return the loop of a run that the command line can go on with."""
    process, until, on_stop = walk(steps, seconds)
    return Loop(
        process,
        until=until,
        on_stop=on_stop,
        run=name,
        journal=Journal(journal),
        checkpoint=CheckpointSchedule(steps=5, keep=4),
        spec={"factory": "walks:walk", "args": {"steps": steps, "seconds": seconds}},
    )


if __name__ == "__main__":
    begin(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), float(sys.argv[4])).run()
