"""Rewards of texts: from the verdicts of checks, and from functions of one's own.

A function gets a batch by TRL's signature, or one text after the other, and has a time limit. What
it returns is looked at, in the first batch also whether it tells texts apart.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from ostinato.arguments import counted, did_you_mean, require, require_above, require_types
from ostinato.checks import TIME_LIMIT, limited
from ostinato.errors import InputError, RunError
from ostinato.loop import Check, Verdict

Messages = Sequence[Mapping[str, str]]


@dataclass(frozen=True, slots=True)
class Rated:
    """What a reward sees of a text: its item's prompt and columns, and the verdicts on it."""

    prompt: str | Messages
    item: Mapping[str, object]
    text: str
    tokens: Sequence[int] = ()
    verdicts: Sequence[Verdict] = ()

    @property
    def completion(self) -> str | list[dict[str, str]]:
        """The text as TRL hands it on: a message where the prompt is a conversation."""
        if isinstance(self.prompt, str):
            return self.text
        return [{"role": "assistant", "content": self.text}]


class Reward(Protocol):
    """Gives each text of a batch a number; higher is better, None where it does not apply."""

    @property
    def name(self) -> str:
        """What messages and reports call it."""
        ...

    @property
    def weight(self) -> float:
        """What it is multiplied by in the sum of all rewards."""
        ...

    def rate(self, texts: Sequence[Rated]) -> Sequence[float | None]:
        """Return the reward of each text."""
        ...


# Checks -----------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class CheckReward:
    """What the verdicts of checks are worth: a number in [0, 1].

    `by` is what counts of a verdict: its score, or only whether it passed. They are averaged with
    `weights` by the name of a check, 1 where none is given; 0 leaves a check out. `whole` is the
    share of the reward that a text gets only if it passes every check that counts.
    """

    checks: tuple[Check, ...]
    by: Literal["score", "verdict"] = "score"
    whole: float = 0.5
    weights: Mapping[str, float] = field(default_factory=dict)
    weight: float = 1.0
    name: str = "checks"

    def __post_init__(self) -> None:
        require(0 <= self.whole <= 1, "whole", "in [0, 1]", self.whole)
        names = [check.name for check in self.checks]
        for name, weight in self.weights.items():
            if name not in names:
                raise InputError(
                    f"weights must name checks of {', '.join(names)}, got {name!r}."
                    f"{did_you_mean(name, names)}"
                )
            fits = math.isfinite(weight) and weight >= 0
            require(fits, f"The weight of the check {name!r}", "a number of 0 or more", weight)
        if not any(self._weight_of(name) for name in names):
            raise InputError("At least one check must count in the reward, got none. Give one.")

    @property
    def known_early(self) -> bool:
        """Whether the reward is known, as 0, as soon as one check can no longer pass."""
        return self.whole == 1

    @property
    def counted(self) -> tuple[Check, ...]:
        """The checks that count."""
        return tuple(check for check in self.checks if self._weight_of(check.name))

    def rate(self, texts: Sequence[Rated]) -> list[float]:
        """Return the reward of each text by its verdicts."""
        return [self.of(text.verdicts) for text in texts]

    def of(self, verdicts: Sequence[Verdict]) -> float:
        """Return what verdicts are worth; those of other checks do not count.

        Raises `RunError` for one of a check that broke.
        """
        names = [check.name for check in self.counted]
        counted = [each for each in verdicts if each.check in names]
        for verdict in counted:
            if verdict.error:
                raise RunError(
                    f"The check {verdict.check!r} must judge every text to be a reward, got: "
                    f"{verdict.error} Mend it and resume the run, or give it the weight 0."
                )
        total = sum(self._weight_of(each.check) for each in counted)
        scores = [each.score if self.by == "score" else float(each.passed) for each in counted]
        mean = sum(
            self._weight_of(each.check) * value for each, value in zip(counted, scores, strict=True)
        )
        passed = all(each.passed for each in counted)
        return (1 - self.whole) * mean / max(total, 1e-12) + self.whole * passed

    def _weight_of(self, name: str) -> float:
        return self.weights.get(name, 1.0)


# Functions --------------------------------------------------------------------------------------

Call = Callable[..., Any]


@dataclass(frozen=True, kw_only=True)
class RewardFunction:
    """A Python function as a reward.

    `function(prompts, completions, **columns)` returns a list of numbers, by the signature of TRL:
    it is called by keywords, with the columns of the items and `completion_ids` as lists. A
    function of other names is called for each text: `function(text)` or `function(text, item)`.
    `time_limit` is in seconds for a batch. None, for a text that it does not apply to, counts 0.
    """

    function: Call
    name: str = ""
    weight: float = 1.0
    time_limit: float = TIME_LIMIT

    def __post_init__(self) -> None:
        require(callable(self.function), "A reward", "a function", self.function)
        require_types(self, "RewardFunction({})")
        require_above(0, time_limit=self.time_limit)
        if not self.name:
            called = getattr(self.function, "__name__", type(self.function).__name__)
            object.__setattr__(self, "name", called)

    def rate(self, texts: Sequence[Rated]) -> list[float | None]:
        """Call the function. Raises `RunError` that names it where it hangs, raises or misfits."""
        try:
            returned = limited(lambda: self._called(texts), self.time_limit)
        except TimeoutError:
            raise RunError(
                f"The reward {self.name!r} must return within "
                f"{counted(self.time_limit, 'seconds', 'g')}, and did "
                f"not for {counted(len(texts), 'texts')}. Make it faster or raise its "
                "time_limit, and resume."
            ) from None
        except (Exception, SystemExit) as error:
            raise RunError(
                f"The reward {self.name!r} must return numbers, and raised "
                f"{type(error).__name__}: {error}. Mend it, and resume the run."
            ) from error
        return self._numbers(returned, len(texts))

    def _called(self, texts: Sequence[Rated]) -> object:
        parameters = inspect.signature(self.function).parameters
        if "completions" not in parameters:
            pair = len(parameters) > 1
            return [self.function(t.text, t.item) if pair else self.function(t.text) for t in texts]
        columns: dict[str, object] = {
            name: [text.item.get(name) for text in texts]
            for name in dict.fromkeys(name for text in texts for name in text.item)
        }
        given = columns | {
            "prompts": [text.prompt for text in texts],
            "completions": [text.completion for text in texts],
            "completion_ids": [list(text.tokens) for text in texts],
        }
        if not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
            given = {name: value for name, value in given.items() if name in parameters}
        return self.function(**given)

    def _numbers(self, returned: object, count: int) -> list[float | None]:
        """Return a list of numbers as such. Raises `RunError` for anything else."""
        if callable(tolist := getattr(returned, "tolist", None)):
            returned = tolist()  # a tensor or an array
        if not isinstance(returned, list | tuple) or len(returned) != count:
            size = f"{len(returned)}" if isinstance(returned, list | tuple) else repr(returned)
            raise RunError(
                f"The reward {self.name!r} must return a list of {count} numbers, one for each "
                f"text, got {size:.60}. Return one for each completion."
            )
        return [self._number(value) for value in returned]

    def _number(self, value: object) -> float | None:
        if value is None:
            return None
        item = getattr(value, "item", None)
        try:
            found = item() if callable(item) else value
            if isinstance(found, bool | int | float) and math.isfinite(found):
                return float(found)
        except (TypeError, ValueError, RuntimeError, OverflowError):
            found = value
        raise RunError(
            f"The reward {self.name!r} must return finite numbers, got {found!r:.60}. Return one "
            "for each completion, or None where it does not apply."
        )


# Together ---------------------------------------------------------------------------------------


def rewards_of(given: Reward | Call | Sequence[Reward | Call]) -> tuple[Reward, ...]:
    """Return rewards; a plain function becomes one. Raises `InputError` for two of one name."""
    several: Sequence[Any] = given if isinstance(given, list | tuple) else [given]
    made: tuple[Reward, ...] = tuple(
        each if callable(getattr(each, "rate", None)) else RewardFunction(function=each)
        for each in several
    )
    require(bool(made), "reward", "at least one reward", given)
    names = [reward.name for reward in made]
    for name in names:
        if names.count(name) > 1:
            raise InputError(
                f"The names of rewards must be unique, got {name!r} twice. Give one another name: "
                "RewardFunction(function=…, name=…)."
            )
    return made


def rate(rewards: Sequence[Reward], texts: Sequence[Rated]) -> dict[str, list[float]]:
    """Return the numbers of each reward by its name; None counts 0."""
    return {
        reward.name: [0.0 if value is None else value for value in reward.rate(texts)]
        for reward in rewards
    }


def require_telling(rated: Mapping[str, Sequence[float]]) -> None:
    """Raise `RunError` for a reward that gave all texts of the first batch the same."""
    for name, values in rated.items():
        if len(values) > 1 and len(set(values)) == 1:
            raise RunError(
                f"The reward {name!r} must tell texts apart, got {values[0]:g} for all "
                f"{len(values)} of the first batch: nothing can be learned from it. Shape it, so "
                "that a better text gets more, or sample more texts at a higher temperature."
            )


def total_rewards(rewards: Sequence[Reward], rated: Mapping[str, Sequence[float]]) -> list[float]:
    """Return the weighted sum of all rewards for each text."""
    columns = [[reward.weight * value for value in rated[reward.name]] for reward in rewards]
    return [sum(row) for row in zip(*columns, strict=True)]
