"""Conditions on the duel of a generator and a discriminator, by the values that it reports."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ostinato.arguments import require, require_at_least, require_types
from ostinato.journal import JSON, StopKind, Stopped
from ostinato.loop import Condition, Observed, State, Step, numbers, readable


@readable
@dataclass(frozen=True)
class ModeCollapse(Condition):
    """Fires when a generator's samples were alike in `patience` reports in a row.

    They are where `duplicates` is at least that bound, or where `diversity` is below a share of the
    best that the duel held (of the data's, if that is less; of `USUAL` before it held any).
    A start is no collapse: before `patience` reports in a row were good, it fires from step `grace`
    on. The images of first weights are noise, which may be as diverse as the data: a diversity that
    has only fallen since the start was not held, up to that step.
    """

    below: float = 0.6
    duplicates: float = 0.5
    patience: int = 5
    grace: int = 150

    def __post_init__(self) -> None:
        require_types(self, "ModeCollapse({})")
        for name, bound in (("below", self.below), ("duplicates", self.duplicates)):
            require(0 < bound <= 1, f"ModeCollapse({name})", "in (0, 1]", bound)
        counts = {"ModeCollapse(patience)": self.patience, "ModeCollapse(grace)": self.grace}
        require_at_least(1, **counts)

    def names(self) -> tuple[str, ...]:
        return ("diversity",)

    def initial_state(self) -> dict[str, Any]:
        # The lowest diversity while it has only fallen, else 0; the last good ones in a row; the
        # best level that was held; reports of samples that are alike, in a row; the position of the
        # last report that was well within the bounds, and whether it was the last of all.
        levels: dict[str, Any] = {"least": None, "good": [], "level": None}
        return levels | {"alike": 0, "well_at": 0, "well": True}

    def observe(self, state: State, step: Step) -> Observed:
        older = not isinstance(state, dict) or "least" not in state
        state = self.initial_state() if older else state
        duplicates = numbers(step.report.get("duplicates"))
        for value in numbers(step.report.get("diversity")):
            state, stopped = self._fold(state, value, max(duplicates, default=0), step.position)
            if stopped is not None:
                return state, stopped
        return state, None

    def last_good(self, state: State) -> int | None:
        if not isinstance(state, dict) or state["well"]:
            return None
        return 0 if state["level"] is None else int(state["well_at"])

    def _fold(
        self, state: dict[str, Any], diversity: float, duplicates: float, position: int
    ) -> Observed:
        level, alike, least = state["level"], state["alike"] + 1, state["least"]
        if least is None:
            least = diversity
        rose = diversity > (1 + EDGE) * least or position >= self.grace
        least = 0.0 if rose else min(least, diversity)
        bound = self.below * (USUAL if level is None else max(USUAL, min(level, 1)))
        well = diversity >= (1 + EDGE) * bound and duplicates < (1 - EDGE) * self.duplicates
        well_at = position if well else state["well_at"]
        state = {**state, "least": least, "well": well, "well_at": well_at}
        if diversity >= bound and duplicates < self.duplicates:
            good = [*state["good"], diversity][-self.patience :] if rose else []
            if len(good) == self.patience:
                level = max(level or 0, min(good))
            return {**state, "good": good, "level": level, "alike": 0}, None
        state = {**state, "good": [], "alike": alike}
        if alike < self.patience or (level is None and position < self.grace):
            return state, None
        sentence = _COLLAPSED.format(
            how="have been alike since the start" if level is None else "have become alike",
            which=f"{duplicates:.0%} of them are near duplicates"
            if duplicates >= self.duplicates
            else f"their diversity is {diversity:.2f} of the data's",
            reports=alike,
        )
        found = {"diversity": diversity, "duplicates": duplicates, "reports": alike}
        last_good = self.last_good(state)
        return state, Stopped(StopKind.DIVERGED, sentence, str(self), found, last_good)


EDGE = 0.2  # of a bound: a report nearer to it may already be part of a collapse
USUAL = 0.5  # a diversity that training duels soon have, as a share of the data's
_COLLAPSED = (
    "The samples {how}: {which}, the last of {reports} such reports. The generator makes few "
    "images (mode collapse). Try a lower lr, a stronger penalty, or the relativistic loss."
)


@readable
@dataclass(frozen=True)
class Overpowered(Condition):
    """Fires when one side of a duel won every step for long, or knows its images by heart.

    The discriminator wins a step where `accuracy` is at least `above`: it leaves the generator
    little to learn from. The generator wins where it is at most 1 - `above`. `patience` counts
    steps, while the scores of real and generated images do not come closer: a generator that
    catches up is not overpowered. `memorized` is the bound of `overfitting` in five reports in a
    row.
    """

    above: float = 0.98
    patience: int = 500
    memorized: float = 0.8

    def __post_init__(self) -> None:
        require_types(self, "Overpowered({})")
        require(0.5 < self.above <= 1, "Overpowered(above)", "in (0.5, 1]", self.above)
        require(self.memorized > 0, "Overpowered(memorized)", "above 0", self.memorized)
        require_at_least(1, **{"Overpowered(patience)": self.patience})

    def names(self) -> tuple[str, ...]:
        return ("accuracy",)

    def initial_state(self) -> dict[str, Any]:
        # Steps won in a row, of the generator below 0; the position before them; how far the scores
        # are apart, smoothed, and the most of that in this row; reports of memorized images; the
        # position of the last other one.
        return {"won": 0, "even_at": 0, "gap": None, "most": 0, "known": 0, "unknown_at": 0}

    def observe(self, state: State, step: Step) -> Observed:
        state = dict(state) if isinstance(state, dict) else self.initial_state()  # an older one
        stopped: Stopped | None = None
        for accuracy in numbers(step.report.get("accuracy")):
            stopped = stopped or self._win(state, accuracy, step)
        for overfitting in numbers(step.report.get("overfitting")):
            stopped = stopped or self._memorize(state, overfitting, step.position)
        return state, stopped

    def last_good(self, state: State) -> int | None:
        if not isinstance(state, dict):
            return None
        troubles: list[int] = [
            state[at] for count, at in (("won", "even_at"), ("known", "unknown_at")) if state[count]
        ]
        return min(troubles, default=None)

    def _win(self, state: dict[str, Any], accuracy: float, step: Step) -> Stopped | None:
        """Count a step that a side wins, in the state."""
        before, gap = state["won"], _smoothed(state["gap"], step)
        closer = gap is not None and gap < CLOSER * state["most"]
        won = self._won(0 if closer else before, accuracy)
        if closer or won * before <= 0:  # a row begins here, or there is none
            state["even_at"], state["most"] = step.position - (won != 0), 0
        state["won"], state["gap"], state["most"] = won, gap, max(state["most"], gap or 0)
        if abs(won) < self.patience:
            return None
        winner, words = ("discriminator", _DISCRIMINATOR) if won > 0 else ("generator", _GENERATOR)
        found: dict[str, JSON] = {"accuracy": accuracy, "steps": abs(won), "winner": winner}
        sentence = words.format(steps=abs(won), accuracy=accuracy)
        return self._stop(sentence, found, state["even_at"])

    def _memorize(self, state: dict[str, Any], overfitting: float, position: int) -> Stopped | None:
        """Count a look that shows images known by heart, in the state."""
        if overfitting < self.memorized:
            state["known"], state["unknown_at"] = 0, position
            return None
        state["known"] += 1
        if state["known"] < MEMORIZED_REPORTS:
            return None
        sentence = _MEMORIZED.format(overfitting=overfitting)
        return self._stop(sentence, {"overfitting": overfitting}, state["unknown_at"])

    def _stop(self, sentence: str, found: dict[str, JSON], good: int) -> Stopped:
        return Stopped(StopKind.DIVERGED, sentence, str(self), found, good)

    def _won(self, before: int, accuracy: float) -> int:
        """Return the steps won in a row: above 0 by the discriminator, below by the generator."""
        if accuracy >= self.above:
            return max(before, 0) + 1
        if accuracy <= 1 - self.above:
            return min(before, 0) - 1
        return 0


def _smoothed(before: float | None, step: Step) -> float | None:
    """Return how far the mean scores are apart, over about the last `SMOOTH` steps."""
    scores = [numbers(step.report.get(f"score/{of}")) for of in ("real", "generated")]
    if not all(scores):
        return before
    now = abs(scores[0][0] - scores[1][0])
    return now if before is None else before + (now - before) / SMOOTH


MEMORIZED_REPORTS = 5
SMOOTH = 20
CLOSER = 0.8  # of the largest distance of the scores: a generator that catches up
_DISCRIMINATOR = (
    "The discriminator has won {steps} steps in a row: it tells {accuracy:.0%} of pairs apart. Go "
    "on with a lower discriminator/lr or a stronger penalty."
)
_GENERATOR = (
    "The generator has won {steps} steps in a row: the discriminator tells {accuracy:.0%} of pairs "
    "apart. Go on with a lower generator/lr or more discriminator updates a step."
)
_MEMORIZED = (
    "The discriminator knows its images by heart: held-out ones score nearly as generated ones "
    "(overfitting {overfitting:.2f}). Take the best weights, augment the images, or add some."
)
