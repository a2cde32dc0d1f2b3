"""Conditions on the duel of a generator and a discriminator, by the values that it reports."""

from __future__ import annotations

from dataclasses import dataclass

from ostinato.arguments import require, require_at_least, require_types
from ostinato.journal import JSON, StopKind, Stopped
from ostinato.loop import Condition, Observed, State, Step, numbers, readable


@readable
@dataclass(frozen=True)
class ModeCollapse(Condition):
    """Fires when `diversity`, a share of the data's, was below a bound in `patience` reports.

    Diversity starts low, and the noise of first weights may be diverse for a moment. So reports
    count only after `patience` of them in a row were not below, or from step `grace` on.
    """

    below: float = 0.3
    patience: int = 5
    grace: int = 150

    def __post_init__(self) -> None:
        require_types(self, "ModeCollapse({})")
        require(0 < self.below <= 1, "ModeCollapse(below)", "in (0, 1]", self.below)
        counts = {"ModeCollapse(patience)": self.patience, "ModeCollapse(grace)": self.grace}
        require_at_least(1, **counts)

    def names(self) -> tuple[str, ...]:
        return ("diversity",)

    def initial_state(self) -> list[int]:
        return [0, 0]  # reports in a row at or above the bound, at most `patience`; those below

    def observe(self, state: State, step: Step) -> Observed:
        for value in numbers(step.report.get("diversity")):
            state, stopped = self._fold(state, value, step.position)
            if stopped is not None:
                return state, stopped
        return state, None

    def _fold(self, state: list[int], diversity: float, position: int) -> Observed:
        healthy, low = state
        if diversity >= self.below:
            return [min(healthy + 1, self.patience), 0], None
        if healthy < self.patience and position < self.grace:
            return [0, 0], None
        low += 1
        how = "fell" if healthy >= self.patience else "stayed"
        if low < self.patience:
            return [healthy, low], None
        sentence = (
            f"The samples' diversity {how} below {self.below:g} of the data's in {low} reports: "
            f"{diversity:.2f}. The generator makes few images. Go back to an earlier checkpoint "
            "with a lower lr, a stronger penalty, or the relativistic loss."
        )
        found: dict[str, JSON] = {"diversity": diversity, "reports": low}
        return [healthy, low], Stopped(StopKind.DIVERGED, sentence, str(self), found)


@readable
@dataclass(frozen=True)
class Overpowered(Condition):
    """Fires when one side of a duel won every step for long, or knows its images by heart.

    The discriminator wins a step where `accuracy` is at least `above`: it leaves the generator
    little to learn from. The generator wins where it is at most 1 - `above`. `patience` counts
    steps. `memorized` is the bound of `overfitting` in five reports in a row.
    """

    above: float = 0.98
    patience: int = 300
    memorized: float = 0.8

    def __post_init__(self) -> None:
        require_types(self, "Overpowered({})")
        require(0.5 < self.above <= 1, "Overpowered(above)", "in (0.5, 1]", self.above)
        require(self.memorized > 0, "Overpowered(memorized)", "above 0", self.memorized)
        require_at_least(1, **{"Overpowered(patience)": self.patience})

    def names(self) -> tuple[str, ...]:
        return ("accuracy",)

    def initial_state(self) -> list[int]:
        return [0, 0]  # steps won in a row, of the generator below 0; reports of memorized images

    def observe(self, state: State, step: Step) -> Observed:
        won, known = state
        for accuracy in numbers(step.report.get("accuracy")):
            won = self._won(won, accuracy)
            if abs(won) >= self.patience:
                side = _DISCRIMINATOR if won > 0 else _GENERATOR
                sentence = side.format(steps=abs(won), accuracy=accuracy)
                found: dict[str, JSON] = {"accuracy": accuracy, "steps": abs(won)}
                return [won, known], self._stop(sentence, found)
        for overfitting in numbers(step.report.get("overfitting")):
            known = known + 1 if overfitting >= self.memorized else 0
            if known >= MEMORIZED_REPORTS:
                sentence = _MEMORIZED.format(overfitting=overfitting)
                return [won, known], self._stop(sentence, {"overfitting": overfitting})
        return [won, known], None

    def _stop(self, sentence: str, found: dict[str, JSON]) -> Stopped:
        return Stopped(StopKind.DIVERGED, sentence, str(self), found)

    def _won(self, before: int, accuracy: float) -> int:
        """Return the steps won in a row: above 0 by the discriminator, below by the generator."""
        if accuracy >= self.above:
            return max(before, 0) + 1
        if accuracy <= 1 - self.above:
            return min(before, 0) - 1
        return 0


MEMORIZED_REPORTS = 5
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
