"""Builds the run in which a policy plays, and writes what was seen as a GIF."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from ostinato.journal import RunSource, require_unchanged, tensor_of
from ostinato.loop import CheckpointSchedule, Loop, Step, Work
from ostinato.media import image_io
from ostinato.models import folder_digest
from ostinato.reward.games.config import PlayRun
from ostinato.reward.games.environments import Episode
from ostinato.reward.games.playing import Playing
from ostinato.reward.games.policy import load_policy, policy_folder
from ostinato.reward.games.spaces import make_environment

FPS = 25  # pictures a second that a GIF shows at most
USUAL_FPS = 30  # of an environment that does not say


@dataclass(kw_only=True)
class PlayWork(Work):
    """A policy at play. `episodes` are those that have ended; `gif` is written at the end."""

    process: Playing
    gif: Path | None = None
    episodes: list[Episode] = field(default_factory=list)
    _small: list[Tensor] = field(default_factory=list, init=False, repr=False)
    _is_whole: bool = field(default=False, init=False, repr=False)  # whether all steps were seen

    def watch(self, step: Step) -> None:
        """Take the returns, and some of the pictures, made smaller."""
        self._is_whole = self._is_whole or step.tick == 1
        if self._is_whole:
            self._take(step.tick, step.report)

    def _take(self, tick: int, report: Any) -> None:
        if "return" in report:
            self.episodes.append(Episode(report["return"], report["length"]))
        if self.gif is not None and tick % self._every == 0:
            self._small.append(image_io.smaller(tensor_of(report["frame"])))

    @property
    def _fps(self) -> float:
        return float(self.process.environments.metadata.get("render_fps", USUAL_FPS))

    @property
    def _every(self) -> int:
        return max(1, round(self._fps / FPS))

    def write(self) -> None:
        """Write the GIF, if one was asked for."""
        self.recall()
        if self.gif is not None and self._small:
            image_io.save_film(self._small, self.gif, fps=self._fps / self._every)

    def recall(self) -> None:
        """Take what earlier sessions of a recorded run played."""
        run = self.loop.recorded_as
        if self._is_whole or run is None:
            return
        self.episodes, self._small, self._is_whole = [], [], True
        for record in run.steps():
            self._take(record.tick, record.report)


def build_play(config: PlayRun, *, run: RunSource | None = None) -> PlayWork:
    """Build the run in which a policy plays."""
    require_unchanged("The policy's files", config.weights, policy_digest(config.policy))
    policy = load_policy(config.policy)
    shown = config.gif is not None
    if shown:  # pygame draws into memory: it looks for no screen, and warns of none
        os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
    options = {"render_mode": "rgb_array"} if shown else {}
    make = partial(make_environment, policy.shape.game, **options)
    process = Playing(policy, make, config.episodes, seed=config.seed, shown=shown)
    loop = Loop(process, run=run, checkpoint=CheckpointSchedule(steps=config.checkpoint_every))
    return PlayWork(loop=loop, process=process, gif=config.gif)


def policy_digest(name: str | Path) -> str:
    """Return a hash of a policy's files. Raises `ModelError` where there is none."""
    return folder_digest(policy_folder(name))
