"""Sequential Monte Carlo steering (Lew et al. 2023, arXiv 2306.03081; Loula et al. 2025).

Samples texts from the model's own distribution, conditioned on passing. Particles are lanes of one
`Decode`. Verdicts on prefixes are the intermediate potentials, verdicts on whole texts the final
one. Knows no network: forking a lane is `Decode`'s.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate

from ostinato.checks import TIME_LIMIT, check_prefix_all
from ostinato.decode import Decode
from ostinato.journal import Fields
from ostinato.loop import Check, Lane, Report, Text
from ostinato.refine.strategies.grouped_lanes import GroupedLanes, LaneGroup, sum_logprobs

DEAD = -math.inf
"""The log-weight of a particle that cannot pass."""


@dataclass(slots=True)
class Particle:
    """One text: the reports of its tokens, and its text once it no longer has a lane."""

    lane: str | None = None  # its key in Decode; None when it has ended or is dead
    reports: list[Report] = field(default_factory=list)
    text: Text | None = None
    over: bool = False
    unjudged: bool = False  # a check could not judge its whole text


@dataclass(slots=True)
class ParticleGroup(LaneGroup):
    """The particles of an item; `weights` and `potentials` are natural logarithms."""

    particles: list[Particle] = field(default_factory=list)
    weights: list[float] = field(default_factory=list)
    potentials: list[float] = field(default_factory=list)
    parents: list[int] | None = None  # of the resampling before the current step
    chosen: int | None = None


class ParticleSampler(GroupedLanes[ParticleGroup]):
    """A lane process that writes the text of each item with `count` particles.

    The weight of a particle is 0 if a check can no longer pass. With `failure_temperature` T it is
    multiplied by exp(-1/T) for each such check, and by exp(-(1 - score)/T) for each check that the
    whole text fails. A text that a check could not judge always weighs 0.

    When the effective sample size, 1 / sum of the squared normalized weights, is below `threshold *
    count`, the particles are resampled. When all have ended, or have `decode.limit` tokens, one of
    them is sampled by weight and becomes the item's text. If none passes but one could not be
    judged, that one is chosen: another text does not repair a check.

    Reports:

    - `drawn`: token and log-probability of each particle, or None
    - `over`: which particles have ended
    - `weights`, `potentials`: logarithms, None for -inf
    - `parents`: the resampling before the step, if there was one
    - `unjudged`: indices, if any
    - `ess`: the effective sample size
    - `evidence`: the logarithm of the estimated probability that a text passes
    - `chosen`, `logprob`, `length`, `ended`: in the last report
    """

    def __init__(
        self,
        decode: Decode,
        checks: Sequence[Check],
        *,
        count: int = 8,
        threshold: float = 0.5,
        failure_temperature: float = 0.0,
        time_limit: float = TIME_LIMIT,
        late: set[str] | None = None,
    ) -> None:
        super().__init__(decode, count, checks, time_limit=time_limit, late=late)
        self.threshold, self.failure_temperature = threshold, failure_temperature

    # A group of particles ---------------------------------------------------------------------

    def _new_group(self, lane: Lane, item: object) -> ParticleGroup:
        size = self.size
        particles = [Particle() for _ in range(size)]
        return ParticleGroup(lane, item, [], particles, [0.0] * size, [0.0] * size)

    def _replay(self, group: ParticleGroup, report: Report) -> None:
        saved = Fields(report)
        if "parents" in saved:
            copies = [group.particles[parent] for parent in saved.items("parents")]
            group.particles = [replace(one, reports=list(one.reports)) for one in copies]
        for particle, pair, over in zip(
            group.particles, saved.items("drawn"), saved.items("over"), strict=True
        ):
            if pair is not None:
                particle.reports.append({"token": int(pair[0]), "logprob": pair[1]})
            particle.over = over
        for number in saved.items("unjudged", []):
            group.particles[number].unjudged = True
        group.weights = _from_json(saved.items("weights"))
        group.potentials = _from_json(saved.items("potentials"))
        group.chosen = saved.integer("chosen") if "chosen" in saved else None

    def _start_lanes(self, group: ParticleGroup) -> None:
        for number, particle in enumerate(group.particles):
            lane = group.child(number, particle.reports)
            self.decode.start(lane, group.item)
            particle.lane = lane.key
            # Started all the same: its text is decoded from its tokens by the lane.
            if particle.over or group.weights[number] == DEAD:
                self._release(particle)

    def _release(self, particle: Particle) -> None:
        """Keep a particle's text and free its slot."""
        assert particle.lane is not None
        particle.text = self.decode.output(particle.lane)
        self.decode.drop(particle.lane)
        particle.lane = None

    def _active_lanes(self, group: ParticleGroup) -> Mapping[int, str]:
        numbered = enumerate(group.particles)
        return {number: particle.lane for number, particle in numbered if particle.lane is not None}

    # A step -----------------------------------------------------------------------------------

    def _prepare(self, group: ParticleGroup) -> None:
        group.parents = None
        # Not if all are dead: there is nothing to sample from.
        if 0 < effective(group.weights) < self.threshold * self.size:
            self._resample(group)

    def _resample(self, group: ParticleGroup) -> None:
        """Resample the particles by their weights; a copy continues at its parent's position."""
        counts = systematic(shares(group.weights), group.uniform("resample"))
        mean = total(group.weights) - math.log(self.size)
        parents = ancestor_indices(counts)
        before = list(group.particles)
        # Two passes: `Decode` has no slot for a copy before the replaced particles have left.
        for number, parent in enumerate(parents):
            replaced = before[number]
            if number != parent and replaced.lane is not None:
                self.decode.drop(replaced.lane)
                replaced.lane = None
        for number, parent in enumerate(parents):
            if number == parent:
                continue
            source = before[parent]
            copied = replace(source, reports=list(source.reports), lane=None)
            if source.lane is not None:
                lane = group.child(number)
                self.decode.fork(source.lane, lane)
                copied.lane = lane.key
            group.particles[number] = copied
        group.potentials = [group.potentials[parent] for parent in parents]
        # The mean, not 1: the total is the estimate of the evidence and must survive.
        group.weights = [mean] * self.size
        group.parents = parents

    def _advance(self, group: ParticleGroup, moved: Mapping[int, Report]) -> dict[str, object]:
        drawn: list[list[object] | None] = [None] * self.size
        for number, report in moved.items():
            particle = group.particles[number]
            drawn[number] = [report["token"], report["logprob"]]
            particle.reports.append(report)
            full = len(particle.reports) == self.decode.limit
            particle.over = "ended" in report or full
            self._weigh(group, number, particle)
        report = {
            "drawn": drawn,
            "over": [particle.over for particle in group.particles],
            "weights": _to_json(group.weights),
            "potentials": _to_json(group.potentials),
            "ess": effective(group.weights),
        }
        if group.parents is not None:
            report["parents"] = group.parents
        if unjudged := _unjudged(group):
            report["unjudged"] = unjudged
        evidence = total(group.weights) - math.log(self.size)
        if evidence > DEAD:
            report["evidence"] = evidence
        return report | self._end(group)

    def _weigh(self, group: ParticleGroup, number: int, particle: Particle) -> None:
        """Multiply a particle's weight by the ratio of its new potential to the one before."""
        assert particle.lane is not None
        output = self.decode.output(particle.lane)
        if particle.over:
            potential = self._final_potential(group, particle, output)
        else:
            potential = self._prefix_potential(group, output)
        group.weights[number] += potential - group.potentials[number]
        group.potentials[number] = potential
        if particle.over or potential == DEAD:  # a dead particle would only cost tokens
            self._release(particle)

    def _prefix_potential(self, group: ParticleGroup, output: Text) -> float:
        """Return the log-potential of a prefix."""
        if self.failure_temperature == 0:
            return DEAD if self._why_hopeless(group, output) is not None else 0.0
        # One call per check: `check_prefix_all` stops at the first hopeless one.
        hopeless = [
            check
            for check in self._checks
            if check_prefix_all([check], output, group.columns, self._time_limit, self._late)
        ]
        return -len(hopeless) / self.failure_temperature

    def _final_potential(self, group: ParticleGroup, particle: Particle, output: Text) -> float:
        """Return the log-potential of a whole text; record whether it could be judged."""
        failed = [verdict for verdict in self._verdicts(group, output) if not verdict.passed]
        particle.unjudged = any(verdict.error for verdict in failed)
        if particle.unjudged:
            return DEAD
        if self.failure_temperature == 0:
            return DEAD if failed else 0.0
        return -sum(1 - verdict.score for verdict in failed) / self.failure_temperature

    def _end(self, group: ParticleGroup) -> dict[str, object]:
        """Return the final report once no particle can continue: one is sampled by weight."""
        if self._active_lanes(group):
            return {}
        unjudged, passing = _unjudged(group), 0.0 in group.potentials
        if unjudged and not passing:
            return self._choose(group, unjudged[0], "A check could not judge a particle.")
        if total(group.weights) == DEAD:
            return {"ended": "No particle can pass any more."}
        cumulative = accumulate(shares(group.weights))
        number = group.uniform("choice")
        sampled = (n for n, reached in enumerate(cumulative) if number < reached)
        # Rounding can leave the last sum below 1, so there is a default.
        return self._choose(group, next(sampled, _heaviest(group)), "All particles have ended.")

    def _choose(self, group: ParticleGroup, number: int, sentence: str) -> dict[str, object]:
        """Make a particle's text the item's, and return its part of the report."""
        group.chosen = number
        reports = group.particles[number].reports
        logprob = sum_logprobs(reports)
        return {"chosen": number, "logprob": logprob, "length": len(reports), "ended": sentence}

    def _output(self, group: ParticleGroup) -> Text:
        number = _heaviest(group) if group.chosen is None else group.chosen
        particle = group.particles[number]
        if particle.lane is not None:
            return self.decode.output(particle.lane)
        assert particle.text is not None
        return particle.text


def _unjudged(group: ParticleGroup) -> list[int]:
    """Return the indices of the particles that a check could not judge."""
    return [n for n, particle in enumerate(group.particles) if particle.unjudged]


def _heaviest(group: ParticleGroup) -> int:
    """Return the index of the greatest weight, the first among equal ones."""
    return max(range(len(group.weights)), key=lambda n: (group.weights[n], -n))


# Weights, all as natural logarithms ---------------------------------------------------------------


def total(weights: Sequence[float]) -> float:
    """Return the log-sum-exp of the weights."""
    top = max(weights)
    if top == DEAD:
        return DEAD
    # `fsum` rounds once: the sum does not depend on the order of the particles.
    return top + math.log(math.fsum(math.exp(weight - top) for weight in weights))


def shares(weights: Sequence[float]) -> list[float]:
    """Return the normalized weights, which sum to 1. At least one must be above -inf."""
    whole = total(weights)
    return [math.exp(weight - whole) for weight in weights]


def effective(weights: Sequence[float]) -> float:
    """Return the effective sample size, from 1 to the number of weights; 0 if all are -inf."""
    if max(weights) == DEAD:
        return 0.0
    return 1 / math.fsum(share * share for share in shares(weights))


def systematic(probabilities: Sequence[float], number: float) -> list[int]:
    """Return how often each index is sampled, by systematic resampling (Carpenter et al. 1999).

    `number` is one uniform number in [0, 1). There are as many draws as probabilities; each count
    differs from its expectation by less than 1.
    """
    count = len(probabilities)
    reached, counts = 0.0, [0] * count
    whole = math.fsum(probabilities)
    draw = 0
    last = max(n for n in range(count) if probabilities[n] > 0)  # takes what rounding leaves
    for n, probability in enumerate(probabilities):
        reached += probability / whole * count
        while draw < count and (number + draw < reached or n == last):
            counts[n] += 1
            draw += 1
    return counts


def ancestor_indices(counts: Sequence[int]) -> list[int]:
    """Return the parent of each index; an index that was sampled is its own parent.

    So a particle that survives keeps its lane; only copies beyond the first need another.
    """
    spare = [n for n, count in enumerate(counts) for _ in range(count - 1)]
    return [n if count else spare.pop(0) for n, count in enumerate(counts)]


def _to_json(weights: Sequence[float]) -> list[float | None]:
    # JSON has no infinity.
    return [None if weight == DEAD else weight for weight in weights]


def _from_json(weights: Sequence[float | None]) -> list[float]:
    return [DEAD if weight is None else weight for weight in weights]
