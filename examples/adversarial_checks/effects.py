"""What a discriminator does to replies that it has not seen, and at what cost.

Each prompt gets its drafts once, and every way picks its reply from the same drafts: what differs
is the discriminator alone. Knows how to measure, not how anything was trained.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import mean
from typing import Any

import torch

from examples.adversarial_checks.discriminator import Discriminator
from ostinato.checks import judge_all
from ostinato.loop import Check
from ostinato.models import LanguageModel

RESAMPLES = 2000
Row = Mapping[str, Any]


@dataclass(frozen=True)
class Drafts:
    """The drafts of a prompt in their order, with the tokens of each."""

    row: Row
    texts: Sequence[str]
    tokens: Sequence[int]


@dataclass(frozen=True)
class Picked:
    """The reply that a way takes, and the tokens that were written for it."""

    text: str
    tokens: int


def first_draft(drafts: Drafts) -> Picked:
    """Take the first draft."""
    return Picked(drafts.texts[0], drafts.tokens[0])


def first_accepted(drafts: Drafts, by: Discriminator, threshold: float = 0.5) -> Picked:
    """Take the first draft that passes, as `resample` does; where none passes, the best one."""
    scores = [by.score(text, drafts.row) for text in drafts.texts]
    at = next((n for n, score in enumerate(scores) if score >= threshold), None)
    if at is None:
        return Picked(drafts.texts[scores.index(max(scores))], sum(drafts.tokens))
    return Picked(drafts.texts[at], sum(drafts.tokens[: at + 1]))


def best(drafts: Drafts, by: Discriminator) -> Picked:
    """Take the draft with the highest score, as `best_of` does."""
    scores = [by.score(text, drafts.row) for text in drafts.texts]
    return Picked(drafts.texts[scores.index(max(scores))], sum(drafts.tokens))


@dataclass(frozen=True)
class Interval:
    """A mean over prompts, with its 95% interval (bootstrap over prompts, percentiles)."""

    mean: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float], seed: int = 0) -> Interval:
        """Return the interval of one value for each prompt."""
        rng = random.Random(seed)
        means = sorted(mean(rng.choices(values, k=len(values))) for _ in range(RESAMPLES))
        return cls(mean(values), means[RESAMPLES // 40], means[-RESAMPLES // 40 - 1])

    def __str__(self) -> str:
        return f"{self.mean:.3f} [{self.low:.3f}, {self.high:.3f}]"


def preferred(scores: Sequence[float], over: Sequence[float]) -> list[float]:
    """Return for each prompt 1 where the first score is higher, 0 where the second, else 0.5."""
    return [0.5 + 0.5 * ((a > b) - (a < b)) for a, b in zip(scores, over, strict=True)]


def passes_all(checks: Sequence[Check], text: str, row: Row) -> float:
    """Return 1 for a reply that passes every check, else 0."""
    return float(all(verdict.passed for verdict in judge_all(checks, text, row)))


@torch.no_grad()
def bits_per_character(model: LanguageModel, message: str, text: str) -> float:
    """Return the cross-entropy of a reply behind its message, in bits per character."""
    prompt = model.tokenizer.chat([{"role": "user", "content": message}])
    reply = model.tokenizer.continuation(text)
    tokens = torch.tensor([*prompt, *reply])
    hidden = model.network(tokens[None])[0, len(prompt) - 1 : -1]  # (T, C), T tokens of the reply
    logits = model.llama().logits(hidden).float()
    nats = torch.nn.functional.cross_entropy(logits, tokens[len(prompt) :], reduction="sum")
    return float(nats) / math.log(2) / max(1, len(text))


MARKS: Mapping[str, Callable[[str], float]] = {
    "words": lambda text: len(text.split()),
    "characters": len,
    "?": lambda text: text.count("?"),
    "!": lambda text: text.count("!"),
    ",": lambda text: text.count(","),
    "digits": lambda text: sum(map(str.isdigit, text)),
}
"""What a discriminator could reward instead of what a reply says."""


def correlation(one: Sequence[float], other: Sequence[float]) -> float:
    """Return Spearman's rank correlation; 0 where one of them is constant."""
    ranks = torch.stack([_ranks(one), _ranks(other)])
    if bool((ranks.std(1) == 0).any()):
        return 0.0
    return float(torch.corrcoef(ranks)[0, 1])


def _ranks(values: Sequence[float]) -> torch.Tensor:
    """Return the ranks; equal values share the mean of theirs."""
    v = torch.tensor(values, dtype=torch.float64)
    below = (v[None] < v[:, None]).sum(1)
    same = (v[None] == v[:, None]).sum(1)
    return below.double() + (same - 1).double() / 2
