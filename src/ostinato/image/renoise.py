"""Renoise: an image that fails its checks is noised part of the way and denoised again."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from ostinato.errors import InputError
from ostinato.loop import Accept, Answer, GiveUp, GoBack, StartOver, Stopped, Tries


@dataclass(frozen=True, kw_only=True)
class Renoise:
    """A strategy: go back as far as the failure needs, with new noise on the image (SDEdit, Meng et
    al. 2022); an image that fails again goes back further, and from pure noise at last.

    `share` is the part of the steps that is taken again first, and is added each time; `rounds`
    how often an image is begun at most, pure noise counted.
    """

    share: float = 0.4
    rounds: int = 3

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise InputError(f"share must be above 0 and at most 1, got {self.share}.")
        if self.rounds < 1:
            raise InputError(f"rounds must be at least 1, got {self.rounds}.")

    def __call__(self, stopped: Stopped, tries: Tries) -> Answer:
        """Answer a stop: what converged or ended without checks is accepted."""
        if stopped.good or stopped.kind not in ("failed", "diverged"):
            return Accept()
        backs = tries.backs(round=tries.lane.round)
        again = math.ceil(tries.position * self.share * (backs + 1))
        if again < tries.position and isinstance(tries.output, Tensor):
            edits = {"renoise": tries.output}
            return GoBack(tries.position - again, edits, stopped.sentence)
        if tries.lane.round + 1 < self.rounds:
            return StartOver({}, stopped.sentence)
        return GiveUp(f"It was begun {self.rounds} times.")
