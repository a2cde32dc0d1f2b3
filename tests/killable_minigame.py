"""A teaching as a loop that `check_killed` starts and kills, with its simulated teacher."""

from __future__ import annotations

import time
from dataclasses import dataclass

from ostinato.journal import Journal, Stopped
from ostinato.reward.minigame import TeachRun, TeachWork, build_teach
from ostinato.runs import record


@dataclass
class Taught:
    """What is driven: the loop, and the teacher that watches each of its steps."""

    work: TeachWork

    def run(self) -> Stopped:
        """Teach to the end."""
        with self.work.loop:
            for _ in self.work.loop:
                self.work.press_by_rule()
                time.sleep(0.002)
        assert self.work.loop.stopped is not None
        return self.work.loop.stopped


def teach(run: str, journal: Journal) -> Taught:
    """Teach a policy that knows nothing, for forty presses."""
    config = TeachRun(policy="none", auto="left", presses=40, seed=3)
    return Taught(build_teach(config, run=record(journal, config, name=run)))
