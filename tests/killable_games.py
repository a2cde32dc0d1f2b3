"""Trainings by reward for `check_killed`."""

from __future__ import annotations

from games import Corridor, small, table

from ostinato.journal import Journal
from ostinato.loop import CheckpointSchedule, Loop, Steps


def policy(run: str, journal: Journal) -> Loop:
    every = CheckpointSchedule(steps=7)
    return Loop(small(Corridor), until=Steps(60), run=run, journal=journal, checkpoint=every)


def q_table(run: str, journal: Journal) -> Loop:
    every = CheckpointSchedule(steps=7)
    return Loop(table(), until=Steps(400), run=run, journal=journal, checkpoint=every)
