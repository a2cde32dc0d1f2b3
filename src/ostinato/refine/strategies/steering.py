"""Strategies that steer while drafts are written: masks over tokens, particles, best of n.

Values alone: what they do is imported when it is first needed, so that a job is read without torch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal, cast

from ostinato.errors import InputError
from ostinato.loop import LaneProcess
from ostinato.refine.strategies.backtrack import Backtrack
from ostinato.refine.strategies.base import SteeringContext, Strategy

if TYPE_CHECKING:
    from ostinato.decode import Decode


@dataclass(frozen=True, kw_only=True)
class Constrain(Backtrack):
    """Draw no token after which a check that can be said as a language could not be met.

    Such checks become a mask over the tokens (`ostinato.refine.strategies.constrain`); the others act as with
    `backtrack`, whose options these are.
    """

    kind: ClassVar[str] = "constrain"
    masks: ClassVar[bool] = True


@dataclass(frozen=True, kw_only=True)
class Smc(Strategy):
    """Write `particles` texts at once, weighed by the checks, and draw those that can pass anew.

    The strategy that keeps the model's own distribution, given that the text passes. `threshold` is
    the share of particles that must count before they are drawn anew, `failure_temperature` how much a failed
    check costs (0: all). A round in which none can pass is followed by another.
    """

    kind: ClassVar[str] = "smc"
    weighs: ClassVar[bool] = True

    particles: int = 8
    threshold: float = 0.5
    failure_temperature: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.particles < 2:
            raise InputError(f"smc's particles must be at least 2, got {self.particles}.")
        if not 0 <= self.threshold <= 1:
            raise InputError(f"smc's threshold must be in [0, 1], got {self.threshold}.")
        if not 0 <= self.failure_temperature < math.inf:
            raise InputError(
                f"smc's failure_temperature must be 0 (none) or more, got {self.failure_temperature}."
            )

    @property
    def lanes(self) -> int:
        """The lanes of Decode that an item takes."""
        return self.particles

    def process(self, decode: Decode, words: SteeringContext) -> LaneProcess:
        """Return the process whose lanes are clouds of particles."""
        from ostinato.refine.strategies.smc import ParticleSampler

        return ParticleSampler(
            decode,
            words.checks,
            count=self.particles,
            threshold=self.threshold,
            failure_temperature=self.failure_temperature,
            time_limit=words.time_limit,
            late=words.late,
        )


@dataclass(frozen=True, kw_only=True)
class BestOf(Strategy):
    """Write `n` drafts, `side` at once, leave the hopeless early and keep the best.

    `by` is "logprob" (the mean log-probability of its tokens) or "score" (the mean score of the
    checks), among the drafts that pass. A round in which none passes is followed by another.
    """

    kind: ClassVar[str] = "best_of"
    rejects: ClassVar[bool] = True

    n: int = 4
    parallel: int = 4
    by: str = "logprob"

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("n", "parallel"):
            if getattr(self, name) < 1:
                raise InputError(f"best_of's {name} must be at least 1, got {getattr(self, name)}.")
        if self.by not in ("logprob", "score"):
            raise InputError(f"best_of's by must be 'logprob' or 'score', got {self.by!r}.")

    @property
    def lanes(self) -> int:
        """The lanes of Decode that an item takes."""
        return min(self.n, self.parallel)

    def steps(self, limit: int) -> int:
        """Return the steps of all drafts, one after the other."""
        return self.n * limit

    def process(self, decode: Decode, words: SteeringContext) -> LaneProcess:
        """Return the process whose lanes are an item's drafts."""
        from ostinato.refine.strategies.best_of import BestOfSampler

        assert decode.limit is not None
        return BestOfSampler(
            decode,
            words.checks,
            n=self.n,
            side=self.parallel,
            limit=decode.limit,
            by=cast(Literal["logprob", "score"], self.by),
            time_limit=words.time_limit,
            late=words.late,
        )
