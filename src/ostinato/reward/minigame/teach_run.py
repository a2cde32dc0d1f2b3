"""Builds runs of teaching from their configurations."""

from __future__ import annotations

from dataclasses import dataclass, field

from ostinato.journal import RunSource, require_unchanged
from ostinato.loop import Budget, CheckpointSchedule, Loop, Never, Work
from ostinato.reward.minigame.config import NO_POLICY, TeachRun
from ostinato.reward.minigame.policy import load_logits, player_digest
from ostinato.reward.minigame.teachers import Measured, measured, simulated_press, taste_of
from ostinato.reward.minigame.teaching import Logits, Teaching, no_policy, untaught

GAMES = 10
"""Games in which a taught policy is measured."""
EVERY = 200
"""Steps between checkpoints. A press is in the journal long before the next one."""


@dataclass(kw_only=True)
class TeachWork(Work):
    """A policy that is taught: `press` says what someone thinks of its last moves."""

    config: TeachRun
    teaching: Teaching
    policy: Logits
    results: tuple[Measured, Measured] | None = field(default=None, init=False)

    def press(self, value: int) -> None:
        """Let the policy learn from a thumb up (1) or down (-1) before its next move."""
        self.loop.change({"press": value})

    def press_by_rule(self) -> int:
        """Let the simulated teacher press, if it wants to; return what it pressed, or 0."""
        value = simulated_press(self.teaching, taste_of(self.config.auto))
        if value:
            self.press(value)
        return value

    def measure(self, games: int = GAMES) -> tuple[Measured, Measured]:
        """Play games of other seeds without and with what was taught; return how both played."""
        taste, taught = taste_of(self.config.auto), self.teaching.weights
        before, after = (
            measured(
                self.policy,
                weights,
                taste,
                strength=self.teaching.strength,
                games=games,
                seed=self.config.seed,
            )
            for weights in (untaught(), taught)
        )
        return before, after

    @property
    def shown(self) -> str:
        """What is measured of the style of a simulated teacher, in words."""
        return taste_of(self.config.auto).shown

    def write(self) -> None:
        """Measure what a simulated teacher has taught."""
        if self.config.auto and self.results is None:
            self.results = self.measure()


def build_teach(config: TeachRun, *, run: RunSource | None = None) -> TeachWork:
    """Build a teaching. Raises `ModelError` for a policy that is none of the mini-game."""
    require_unchanged("The policy's files", config.weights, player_digest(config.policy))
    policy = no_policy if config.policy == NO_POLICY else load_logits(config.policy)
    teaching = Teaching(policy, seed=config.seed, pace=config.speed)
    until = Budget("presses", config.presses) if config.presses else Never()
    loop = Loop(teaching, until=until, run=run, checkpoint=CheckpointSchedule(steps=EVERY))
    return TeachWork(loop=loop, config=config, teaching=teaching, policy=policy)
