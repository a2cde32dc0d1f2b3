"""Options of the strategies that steer generation: masks over tokens, particles, best of n.

Knows values only. What they do is imported when it is first needed, so that a job file is read
without torch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from ostinato.arguments import require, require_at_least
from ostinato.loop import LaneProcess
from ostinato.refine.strategies.backtrack import Backtrack
from ostinato.refine.strategies.base import SteeringContext, Strategy

if TYPE_CHECKING:
    from ostinato.decode import Decode


@dataclass(frozen=True, kw_only=True)
class Constrain(Backtrack):
    """Constrained decoding (Willard and Louf 2023, arXiv 2307.09702), with backtracking beneath.

    Checks that can be written as a language become a mask over the tokens
    (`ostinato.refine.strategies.constrain`). The others act as with `backtrack`, whose options
    these are.
    """

    kind: ClassVar[str] = "constrain"
    masks: ClassVar[bool] = True


@dataclass(frozen=True, kw_only=True)
class Smc(Strategy):
    """Sequential Monte Carlo steering (Lew et al. 2023, arXiv 2306.03081).

    Writes `particles` texts in parallel, weighs them by the checks and resamples them. It keeps the
    model's own distribution, conditioned on passing. If no particle passes, another round starts.

    `threshold`: resample when the effective sample size falls below this share of the particles.
    `failure_temperature`: above 0, a failed check divides the weight by a power of e instead of
    setting it to 0.
    """

    kind: ClassVar[str] = "smc"
    weighs: ClassVar[bool] = True

    particles: int = 8
    threshold: float = 0.5  # half the particles, the usual choice
    failure_temperature: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require_at_least(2, "Raise it.", particles=self.particles)
        require(
            0 <= self.threshold <= 1, "threshold", "in [0, 1]", self.threshold, "It is a share."
        )
        require(
            0 <= self.failure_temperature < math.inf,
            "failure_temperature",
            "0 (a failed check rules the text out) or more",
            self.failure_temperature,
            "Set it to 0 or above.",
        )

    @property
    def lanes(self) -> int:
        """How many lanes of `Decode` one item takes."""
        return self.particles

    def process(self, decode: Decode, context: SteeringContext) -> LaneProcess:
        """Return the process whose lanes are groups of particles."""
        from ostinato.refine.strategies.smc import ParticleSampler

        return ParticleSampler(
            decode,
            context.checks,
            count=self.particles,
            threshold=self.threshold,
            failure_temperature=self.failure_temperature,
            time_limit=context.time_limit,
            late=context.late,
        )


@dataclass(frozen=True, kw_only=True)
class BestOf(Strategy):
    """Best of n with early rejection, after Sun et al. 2024 (arXiv 2410.20290).

    Writes `n` drafts, `parallel` at a time, drops a draft that can no longer pass, and keeps the
    best that passes. `by` ranks them: "logprob" is the mean log-probability of the tokens, "score"
    the mean score of the checks. If no draft passes, another round starts.
    """

    kind: ClassVar[str] = "best_of"
    rejects: ClassVar[bool] = True

    n: int = 4
    parallel: int = 4
    by: Literal["logprob", "score"] = "logprob"

    def __post_init__(self) -> None:
        super().__post_init__()
        require_at_least(1, "Set it to 1 or more.", n=self.n, parallel=self.parallel)

    @property
    def lanes(self) -> int:
        """How many lanes of `Decode` one item takes."""
        return min(self.n, self.parallel)

    def steps(self, limit: int) -> int:
        """Return the steps of `n` drafts of at most `limit` tokens, written one after the other."""
        return self.n * limit

    def process(self, decode: Decode, context: SteeringContext) -> LaneProcess:
        """Return the process whose lanes are groups of drafts."""
        from ostinato.refine.strategies.best_of import BestOfSampler

        # `Refine` always sets it; without it, a draft need not end.
        assert decode.limit is not None
        return BestOfSampler(
            decode,
            context.checks,
            n=self.n,
            parallel=self.parallel,
            limit=decode.limit,
            by=self.by,
            time_limit=context.time_limit,
            late=context.late,
        )
