"""When the training of a variational autoencoder went wrong, by the values that it reports."""

from __future__ import annotations

from dataclasses import dataclass

from ostinato.arguments import counted, require_above, require_at_least, require_types
from ostinato.journal import JSON, StopKind, Stopped
from ostinato.loop import Condition, Observed, State, Step, numbers, readable


@readable
@dataclass(frozen=True)
class PosteriorCollapse(Condition):
    """Fires when the points told nothing of the images for `patience` steps in a row.

    That is where `kl` is below `below` nats an image, or where the last validation found no active
    unit: the decoder then draws the same of every image. Both start low, so steps count only after
    `patience` of them in a row told something, or from step `grace` on. After going back, steps are
    counted anew: what was changed there takes some to help.
    """

    below: float = 0.1
    patience: int = 100
    grace: int = 300

    def __post_init__(self) -> None:
        require_types(self, "PosteriorCollapse({})")
        require_above(0, **{"PosteriorCollapse(below)": self.below})
        counts = {"PosteriorCollapse(patience)": self.patience}
        require_at_least(1, **counts, **{"PosteriorCollapse(grace)": self.grace})

    def names(self) -> tuple[str, ...]:
        return ("kl",)

    def initial_state(self) -> list[int]:
        # Steps in a row that told something, at most `patience`; those that did not; active units,
        # -1 before the first validation; steps that were taken back; the last good position.
        return [0, 0, -1, 0, 0]

    def last_good(self, state: State) -> int | None:
        return int(state[4]) if state[1] else None

    def observe(self, state: State, step: Step) -> Observed:
        told, silent, active, before, good = state
        back = step.tick - step.position
        silent = silent if back == before else 0
        for units in numbers(step.report.get("active_units")):
            active = int(units)
        for kl in numbers(step.report.get("kl")):
            if kl >= self.below and active != 0:
                told, silent = min(told + 1, self.patience), 0
            elif told < self.patience and step.position < self.grace:
                told, silent = 0, 0
            else:
                silent += 1
            if not silent:  # where they never told anything, no step was a good one
                good = step.position if told else 0
            if silent >= self.patience:
                return [told, silent, active, back, good], self._stop(kl, active, silent, good)
        return [told, silent, active, back, good], None

    def _stop(self, kl: float, active: int, steps: int, good: int) -> Stopped:
        units = "" if active < 0 else f", of which {active} units depend on it"
        sentence = (
            f"The posterior has collapsed: for {counted(steps, 'steps')} the points told nearly "
            "nothing of "
            f"their images ({kl:.2f} nats{units}). Lower beta, give free_bits such as 0.1, or "
            "lower the learning rate."
        )
        found: dict[str, JSON] = {"kl": kl, "active_units": active, "steps": steps}
        return Stopped(StopKind.DIVERGED, sentence, str(self), found, good)
