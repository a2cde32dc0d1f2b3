"""The held-out prompts, measured: what each way of picking a reply gains, and what it costs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from statistics import mean
from typing import Any

from examples.adversarial_checks.discriminator import Discriminator
from examples.adversarial_checks.effects import (
    MARKS,
    Drafts,
    Interval,
    Picked,
    best,
    bits_per_character,
    correlation,
    first_accepted,
    first_draft,
    passes_all,
    preferred,
)
from examples.adversarial_checks.heldout_judge import HeldOutJudge
from ostinato.loop import Check
from ostinato.models import LanguageModel

Pick = Callable[[Drafts], Picked]


@dataclass(frozen=True, kw_only=True)
class Way:
    """What a way of picking replies reaches on the held-out prompts.

    `preferred`: how often the judge scores its reply above the first draft, equal replies are
    half. `beats_reference`: above the person's. `fewer_bits`, `more_passed`: bits per character
    below, and share of replies that pass the checks of the booking desk above, the first draft's.
    """

    preferred: Interval
    beats_reference: Interval
    fewer_bits: Interval
    more_passed: Interval
    passed: float
    bits: float
    tokens: float
    marks: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class Effects:
    """All ways, people's replies for comparison, and signs of a discriminator that is fooled.

    `follows`: rank correlation of the scores of all drafts with plain marks of a text, by
    discriminator and judge.
    """

    prompts: int
    judge_accuracy: float
    ways: Mapping[str, Way]
    references: Mapping[str, float]
    follows: Mapping[str, Mapping[str, float]]

    def to_json(self) -> dict[str, Any]:
        """Return all numbers."""
        return asdict(self)


@dataclass
class Measure:
    """Measures replies to prompts; a text that several ways take is measured once."""

    pools: Sequence[Drafts]
    judge: HeldOutJudge
    checks: Sequence[Check]
    fluency: LanguageModel
    _bits: dict[tuple[str, str], float] = field(default_factory=dict)

    def effects(self, first: Discriminator, last: Discriminator) -> Effects:
        """Measure the first draft, what two discriminators accept, and the best of all drafts."""
        picks: dict[str, Pick] = {
            "one draft": first_draft,
            "first discriminator": lambda pool: first_accepted(pool, first),
            "last discriminator": lambda pool: first_accepted(pool, last),
            "best by the last": lambda pool: best(pool, last),
        }
        picked = {name: [pick(pool) for pool in self.pools] for name, pick in picks.items()}
        references = [str(pool.row["reference"]) for pool in self.pools]
        baseline = [one.text for one in picked["one draft"]]
        return Effects(
            prompts=len(self.pools),
            judge_accuracy=self.judge.accuracy,
            ways={name: self._way(way, baseline, references) for name, way in picked.items()},
            references={
                "passed": mean(self._passed(references)),
                "bits": mean(self._fluency(references)),
                **marks(references),
            },
            follows=self._follows({"first": first, "last": last}),
        )

    def _way(self, way: Sequence[Picked], baseline: list[str], references: list[str]) -> Way:
        texts = [one.text for one in way]
        scores, bits, passed = self._scores(texts), self._fluency(texts), self._passed(texts)
        pairs = zip(bits, self._fluency(baseline), strict=True)
        more = zip(passed, self._passed(baseline), strict=True)
        return Way(
            preferred=Interval.of(preferred(scores, self._scores(baseline))),
            beats_reference=Interval.of(preferred(scores, self._scores(references))),
            fewer_bits=Interval.of([before - now for now, before in pairs]),
            more_passed=Interval.of([now - before for now, before in more]),
            passed=mean(passed),
            bits=mean(bits),
            tokens=mean(one.tokens for one in way),
            marks=marks(texts),
        )

    def _scores(self, texts: Sequence[str]) -> list[float]:
        return self.judge.scores(list(zip(self._messages(), texts, strict=True)))

    def _messages(self) -> list[str]:
        return [str(pool.row["message"]) for pool in self.pools]

    def _passed(self, texts: Sequence[str]) -> list[float]:
        pairs = zip(self.pools, texts, strict=True)
        return [passes_all(self.checks, text, pool.row) for pool, text in pairs]

    def _fluency(self, texts: Sequence[str]) -> list[float]:
        for pair in zip(self._messages(), texts, strict=True):
            if pair not in self._bits:
                self._bits[pair] = bits_per_character(self.fluency, *pair)
        return [self._bits[pair] for pair in zip(self._messages(), texts, strict=True)]

    def _follows(self, discriminators: Mapping[str, Discriminator]) -> dict[str, dict[str, float]]:
        """Return the correlations over all drafts of all prompts."""
        drafts = [(text, pool.row) for pool in self.pools for text in pool.texts]
        pairs = [(str(row["message"]), text) for text, row in drafts]
        found = {"judge": self.judge.scores(pairs)}
        for name, one in discriminators.items():
            found[name] = [one.score(text, row) for text, row in drafts]
        plain = {mark: [count(text) for text, _ in drafts] for mark, count in MARKS.items()}
        plain["judge"] = found["judge"]
        return {
            name: {mark: correlation(scores, plain[mark]) for mark in plain if mark != name}
            for name, scores in found.items()
        }


def marks(texts: Sequence[str]) -> dict[str, float]:
    """Return the mean of each plain mark."""
    return {name: mean(count(text) for text in texts) for name, count in MARKS.items()}


def lines(effects: Effects) -> list[str]:
    """Return what was found, for a terminal."""
    base = effects.ways["one draft"]
    told = [
        f"{effects.prompts} held-out prompts; mean [95% interval]. The judge tells people's replies"
        f" from drafts with an accuracy of {effects.judge_accuracy:.2f}.",
        f"{'':20} {'preferred':22} {'above reference':22} {'passed':>6} {'bits':>5} {'words':>5} "
        f"{'tokens':>6}",
    ]
    for name, way in effects.ways.items():
        told.append(
            f"{name:20} {way.preferred!s:22} {way.beats_reference!s:22} {way.passed:6.3f} "
            f"{way.bits:5.2f} {way.marks['words']:5.1f} {way.tokens:6.1f}"
        )
    people = effects.references
    told.append(
        f"{'people':20} {'':22} {'':22} {people['passed']:6.3f} {people['bits']:5.2f} "
        f"{people['words']:5.1f}"
    )
    for name, found in effects.follows.items():
        shown = ", ".join(f"{mark} {value:+.2f}" for mark, value in found.items())
        told.append(f"The score of the {name} follows: {shown}.")
    return [*told, verdict(effects.ways["last discriminator"], base)]


def verdict(way: Way, base: Way) -> str:
    """Return in a sentence whether the adversarial check helps, and what it costs."""
    cost = f"for {way.tokens / base.tokens:.1f} times the tokens"
    if way.preferred.low > 0.5:
        return f"It helps: the judge prefers its replies in {way.preferred} of the cases, {cost}."
    if way.preferred.high < 0.5:
        return f"It harms: the judge prefers its replies in {way.preferred} of the cases, {cost}."
    return f"No effect is shown: the judge prefers its replies in {way.preferred}, {cost}."
