"""Sequential Monte Carlo: texts from the model's own distribution, given that they pass.

Lew, Zhi-Xuan, Grand and Mansinghka 2023, "Sequential Monte Carlo Steering of Large Language Models
using Probabilistic Programs"; Loula et al. 2025, "Syntactic and Semantic Control of Large Language
Models via Sequential Monte Carlo". Particles are lanes of one `Decode`; the checks' verdicts on
what stands so far are the intermediate potentials, those on the whole text the last one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate
from typing import cast

from ostinato.checks import TIME_LIMIT, check_prefix_all
from ostinato.decode import Decode
from ostinato.loop import Check, Lane, Report, Text
from ostinato.refine.strategies.grouped_lanes import GroupedLanes, LaneGroup

DEAD = -math.inf


@dataclass(slots=True)
class Particle:
    """One text of the cloud: its tokens' reports, and its text once it cannot go on."""

    lane: str | None = None  # its place in Decode, while it can go on
    reports: list[Report] = field(default_factory=list)
    text: Text | None = None
    over: bool = False
    unjudged: bool = False  # a check could not judge its whole text


@dataclass(slots=True)
class ParticleGroup(LaneGroup):
    """The particles of an item, with the natural logarithms of their weights."""

    particles: list[Particle] = field(default_factory=list)
    weights: list[float] = field(default_factory=list)
    potentials: list[float] = field(default_factory=list)
    parents: list[int] | None = None  # of the resampling before the step that is being taken
    chosen: int | None = None


class ParticleSampler(GroupedLanes[ParticleGroup]):
    """A lane process in which `count` particles stand for each item's text.

    The weight of a particle is what its verdicts are worth: nothing where a check cannot be passed
    any more, or with `failure_temperature`, exp(-1/failure_temperature) for each such check, and exp(-(1 - score)/failure_temperature) for
    each check that a whole text fails; nothing where a check could not judge it. Where the
    effective sample size (1 / sum of the squared weights) is below `threshold * count`, particles
    are drawn anew by their weights (systematic resampling). When all have ended, by themselves or
    at `decode.limit`, the text is that of one drawn by its weight: up to the number of particles, a
    sample of what `Decode` draws, given that it passes. Where none passes and one could not be
    judged, the text is that of this one: no other text mends a check.

    Reports: `drawn` (for each particle token and log-probability, or None), `over` (which have
    ended), `weights` and `potentials` (logarithms, None for nothing), `parents` where they were
    drawn anew before the step, `unjudged` where a check could not judge some (their numbers),
    `ess`, `evidence` (the logarithm of the share of texts that pass, estimated), and at the end
    `chosen`, `logprob` of the chosen text, and `ended`.
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

    # A cloud ----------------------------------------------------------------------------------

    def _begin(self, lane: Lane, item: object) -> ParticleGroup:
        size = self.size
        particles = [Particle() for _ in range(size)]
        return ParticleGroup(lane, item, [], particles, [0.0] * size, [0.0] * size)

    def _replay(self, member: ParticleGroup, report: Report) -> None:
        if (parents := cast("list[int] | None", report.get("parents"))) is not None:
            copies = [member.particles[parent] for parent in parents]
            member.particles = [replace(one, reports=list(one.reports)) for one in copies]
        drawn = cast("list[list[float] | None]", report["drawn"])
        for particle, pair, over in zip(
            member.particles, drawn, cast(list[bool], report["over"]), strict=True
        ):
            if pair is not None:
                particle.reports.append({"token": int(pair[0]), "logprob": pair[1]})
            particle.over = over
        for number in cast("list[int]", report.get("unjudged", [])):
            member.particles[number].unjudged = True
        member.weights = _from_json(report["weights"])
        member.potentials = _from_json(report["potentials"])
        member.chosen = cast("int | None", report.get("chosen"))

    def _enter(self, member: ParticleGroup) -> None:
        for number, particle in enumerate(member.particles):
            lane = member.inner(number, particle.reports)
            self.decode.start(lane, member.item)
            particle.lane = lane.key
            if particle.over or member.weights[number] == DEAD:
                self._leave(particle)

    def _leave(self, particle: Particle) -> None:
        assert particle.lane is not None
        particle.text = self.decode.output(particle.lane)
        self.decode.drop(particle.lane)
        particle.lane = None

    def _lanes(self, member: ParticleGroup) -> Mapping[int, str]:
        named = enumerate(member.particles)
        return {number: particle.lane for number, particle in named if particle.lane is not None}

    # A step -----------------------------------------------------------------------------------

    def _prepare(self, member: ParticleGroup) -> None:
        member.parents = None
        if 0 < effective(member.weights) < self.threshold * self.size:
            self._resample(member)

    def _resample(self, member: ParticleGroup) -> None:
        """Draw the particles anew by their weights; a copy goes on from where its parent stands."""
        counts = systematic(shares(member.weights), member.number("resample"))
        mean = total(member.weights) - math.log(self.size)
        parents = keep_places(counts)
        before = list(member.particles)
        for number, parent in enumerate(parents):
            gone = before[number]
            if number != parent and gone.lane is not None:
                self.decode.drop(gone.lane)
                gone.lane = None
        for number, parent in enumerate(parents):
            if number == parent:
                continue
            source = before[parent]
            copied = replace(source, reports=list(source.reports), lane=None)
            if source.lane is not None:
                lane = member.inner(number)
                self.decode.fork(source.lane, lane)
                copied.lane = lane.key
            member.particles[number] = copied
        member.potentials = [member.potentials[parent] for parent in parents]
        member.weights = [mean] * self.size
        member.parents = parents

    def _advance(self, member: ParticleGroup, moved: Mapping[int, Report]) -> dict[str, object]:
        drawn: list[list[object] | None] = [None] * self.size
        for number, report in moved.items():
            particle = member.particles[number]
            drawn[number] = [report["token"], report["logprob"]]
            particle.reports.append(report)
            full = len(particle.reports) == self.decode.limit
            particle.over = "ended" in report or full
            self._weigh(member, number, particle)
        report = {
            "drawn": drawn,
            "over": [particle.over for particle in member.particles],
            "weights": _to_json(member.weights),
            "potentials": _to_json(member.potentials),
            "ess": effective(member.weights),
        }
        if member.parents is not None:
            report["parents"] = member.parents
        if unjudged := _unjudged(member):
            report["unjudged"] = unjudged
        evidence = total(member.weights) - math.log(self.size)
        if evidence > DEAD:
            report["evidence"] = evidence
        return report | self._end(member)

    def _weigh(self, member: ParticleGroup, number: int, particle: Particle) -> None:
        """Multiply a particle's weight by what its newest token has changed."""
        assert particle.lane is not None
        output = self.decode.output(particle.lane)
        if particle.over:
            potential = self._last(member, particle, output)
        else:
            potential = self._so_far(member, output)
        member.weights[number] += potential - member.potentials[number]
        member.potentials[number] = potential
        if particle.over or potential == DEAD:  # it is not stepped for nothing
            self._leave(particle)

    def _so_far(self, member: ParticleGroup, output: Text) -> float:
        """Return the logarithm of what a beginning is worth."""
        if self.failure_temperature == 0:
            return DEAD if self._impossible(member, output) is not None else 0.0
        hopeless = [
            check
            for check in self._checks
            if check_prefix_all([check], output, member.columns, self._time_limit, self._late)
        ]
        return -len(hopeless) / self.failure_temperature

    def _last(self, member: ParticleGroup, particle: Particle, output: Text) -> float:
        """Return the logarithm of what a whole text is worth; note where it could not be judged."""
        failed = [verdict for verdict in self._verdicts(member, output) if not verdict.passed]
        particle.unjudged = any(verdict.error for verdict in failed)
        if particle.unjudged:
            return DEAD
        if self.failure_temperature == 0:
            return DEAD if failed else 0.0
        return -sum(1 - verdict.score for verdict in failed) / self.failure_temperature

    def _end(self, member: ParticleGroup) -> dict[str, object]:
        """Return what is told when nothing can go on: one particle is drawn by its weight."""
        if self._lanes(member):
            return {}
        unjudged, passing = _unjudged(member), 0.0 in member.potentials
        if unjudged and not passing:
            return self._choose(member, unjudged[0], "A check could not judge a particle.")
        if total(member.weights) == DEAD:
            return {"ended": "No particle can pass any more."}
        share = accumulate(shares(member.weights))
        number = member.number("choice")
        drawn = (n for n, reached in enumerate(share) if number < reached)
        return self._choose(member, next(drawn, _heaviest(member)), "All particles have ended.")

    def _choose(self, member: ParticleGroup, number: int, sentence: str) -> dict[str, object]:
        """Let a particle's text be the item's; return what is told of it."""
        member.chosen = number
        reports = member.particles[number].reports
        logprob = sum(cast(float, report["logprob"]) for report in reports)
        told = {"chosen": number, "logprob": logprob, "length": len(reports)}
        return {**told, "ended": sentence}

    def _output(self, member: ParticleGroup) -> Text:
        number = _heaviest(member) if member.chosen is None else member.chosen
        particle = member.particles[number]
        if particle.lane is not None:
            return self.decode.output(particle.lane)
        assert particle.text is not None
        return particle.text


def _unjudged(member: ParticleGroup) -> list[int]:
    """Return the numbers of the particles that a check could not judge."""
    return [n for n, particle in enumerate(member.particles) if particle.unjudged]


def _heaviest(member: ParticleGroup) -> int:
    """Return the particle of the greatest weight, the first of equal ones."""
    return max(range(len(member.weights)), key=lambda n: (member.weights[n], -n))


# Weights, all as natural logarithms ---------------------------------------------------------------


def total(weights: Sequence[float]) -> float:
    """Return the logarithm of the sum."""
    top = max(weights)
    if top == DEAD:
        return DEAD
    return top + math.log(math.fsum(math.exp(weight - top) for weight in weights))


def shares(weights: Sequence[float]) -> list[float]:
    """Return the weights as shares of 1. One at least must be more than nothing."""
    whole = total(weights)
    return [math.exp(weight - whole) for weight in weights]


def effective(weights: Sequence[float]) -> float:
    """Return the effective sample size, from 1 to their number; 0 where all are nothing."""
    if max(weights) == DEAD:
        return 0.0
    return 1 / math.fsum(share * share for share in shares(weights))


def systematic(probabilities: Sequence[float], number: float) -> list[int]:
    """Return how often each is drawn in as many draws, by one uniform number in [0, 1).

    Systematic resampling (Carpenter, Clifford and Fearnhead 1999): each is drawn its share of times
    on average, and never a whole time more or less.
    """
    count = len(probabilities)
    reached, counts = 0.0, [0] * count
    whole = math.fsum(probabilities)
    place = 0
    last = max(n for n in range(count) if probabilities[n] > 0)  # what rounding leaves goes there
    for n, probability in enumerate(probabilities):
        reached += probability / whole * count
        while place < count and (number + place < reached or n == last):
            counts[n] += 1
            place += 1
    return counts


def keep_places(counts: Sequence[int]) -> list[int]:
    """Return each place's parent, so that all that are drawn at all stay where they are."""
    spare = [n for n, count in enumerate(counts) for _ in range(count - 1)]
    return [n if count else spare.pop(0) for n, count in enumerate(counts)]


def _to_json(weights: Sequence[float]) -> list[float | None]:
    return [None if weight == DEAD else weight for weight in weights]


def _from_json(weights: object) -> list[float]:
    return [DEAD if weight is None else weight for weight in cast("list[float | None]", weights)]
