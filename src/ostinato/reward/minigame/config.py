"""The configuration of a teaching. Imports no torch and no numpy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ostinato.arguments import require, require_at_least, require_types
from ostinato.journal import Place, RunConfig
from ostinato.loop import check_seed

NO_POLICY = "none"
"""The name of a policy that knows nothing."""

RULES = {
    "lilies": "it wants lilies, and no pearls",
    "pearls": "it wants pearls, and no lilies",
    "left": "it wants the boat left of the middle",
    "right": "it wants the boat right of the middle",
    "calm": "it wants the boat to go straight on",
    "score": "it wants what the game rewards",
}
"""The simulated teachers by name, and what they want."""


@dataclass(frozen=True, kw_only=True)
class TeachRun(RunConfig):
    """A policy that plays the mini-game while someone teaches it.

    `policy` is a folder or a shipped name, or `none`. `auto` names a simulated teacher; empty: a
    person in the terminal. `speed` is in moves per second: how long ago a move was decides what a
    press says about it, so it belongs to the run. `presses` ends the teaching; 0 does not.
    """

    kind: ClassVar[str] = "teach"
    free: ClassVar[frozenset[str]] = frozenset({"auto", "presses"})
    hashes: ClassVar[frozenset[str]] = frozenset({"weights"})
    longer: ClassVar[str] = "Give more --presses to ostinato teach."

    policy: Place = "river"
    auto: str = ""
    speed: float = 5.0
    presses: int = 0
    seed: int = 0
    weights: str = ""

    def __post_init__(self) -> None:
        require_types(self)
        check_seed(self.seed)
        require(0.5 <= self.speed <= 30, "speed", "0.5 to 30", self.speed, "Take 5.")
        require_at_least(0, presses=self.presses)
        if self.auto:
            known = ", ".join(RULES)
            require(self.auto in RULES, "auto", f"one of {known}", self.auto)
