"""Pieces and their training as loops that `check_killed` starts and kills."""

from __future__ import annotations

from typing import Any

from toys import slowly

from ostinato.decode import SamplingParams
from ostinato.loop import CheckpointSchedule, Loop, Steps
from ostinato.music import Score, VoiceRange, examples, music_model, prompt
from ostinato.refine import Backtrack, Refine
from ostinato.train import TextTask, Training, TrainingConfig


def write(**where: Any) -> Loop:
    """Pieces by an untrained network, held to the ranges of voices by backtracking."""
    items = [{"key": key} for key in ("C major", "G minor", "D major", "E minor")]
    refine = Refine(
        music_model(layers=1, width=16, heads=1),
        items,
        prompt=prompt,
        checks=[VoiceRange()],
        strategy=Backtrack(rounds=2, token_retries=100),
        sampling=SamplingParams(temperature=1.0),
        max_new_tokens=12,
        slots=3,
    )
    until = Steps(400) | slowly(0.008)
    return refine.loop(until=until, checkpoint=CheckpointSchedule(steps=8), **where)


def learn(**where: Any) -> Loop:
    """Train on made-up pieces."""
    pieces = [Score(((67 + n, 64, 60, 48),) * (3 + n)) for n in range(4)]
    network = music_model(layers=1, width=16, heads=1).llama()
    task = TextTask(examples(pieces), examples(pieces[:1], every_key=False))
    config = TrainingConfig(
        steps=40, batch_tokens=64, optimizer="muon", ema_decay=0.9, valid_every=6
    )
    return Loop(
        Training(network, task, config),
        until=Steps(40),
        checkpoint=CheckpointSchedule(steps=7),
        **where,
    )
