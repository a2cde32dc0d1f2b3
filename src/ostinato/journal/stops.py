"""Why a loop or a lane stopped, as data. Knows no process and no condition."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from ostinato.journal.fields import Fields

JSON = None | bool | int | float | str | list["JSON"] | dict[str, "JSON"]


class StopKind(StrEnum):
    """The nine reasons why something stops."""

    PASSED = "passed"
    CONVERGED = "converged"
    ENDED = "ended"
    BUDGET = "budget"
    FAILED = "failed"
    NO_PROGRESS = "no progress"
    DIVERGED = "diverged"
    PERSON = "stopped by a person"
    ERROR = "error"


# When several conditions fire at one step, the first of these is the reason that is given. A good
# result comes before a budget that ends with it: an end token as the last token that the budget
# allows is an end.
PRECEDENCE = (
    StopKind.PERSON,
    StopKind.ERROR,
    StopKind.DIVERGED,
    StopKind.PASSED,
    StopKind.ENDED,
    StopKind.FAILED,
    StopKind.CONVERGED,
    StopKind.NO_PROGRESS,
    StopKind.BUDGET,
)


@dataclass(frozen=True, slots=True)
class Stopped:
    """Why it stopped: the kind, a sentence, the condition that fired and its numbers.

    `last_good` is the last position before the trouble, where the condition saw it come: what was
    saved later is part of it. None: the trouble came with the last step.
    """

    kind: StopKind
    sentence: str
    condition: str = ""
    numbers: Mapping[str, JSON] = field(default_factory=dict)
    last_good: int | None = None

    @property
    def good(self) -> bool:
        """Whether the result can be used as it is: passed, converged or ended."""
        return self.kind in (StopKind.PASSED, StopKind.CONVERGED, StopKind.ENDED)

    def to_json(self) -> dict[str, JSON]:
        """Return the stop as a JSON object."""
        stop: dict[str, JSON] = {
            "kind": self.kind.value,
            "sentence": self.sentence,
            "condition": self.condition,
            "numbers": dict(self.numbers),
        }
        return stop if self.last_good is None else stop | {"last_good": self.last_good}

    @classmethod
    def from_json(cls, value: Mapping[str, object]) -> Stopped:
        """Read back what `to_json` wrote."""
        saved = Fields(value)
        return cls(
            StopKind(saved.choice("kind", [kind.value for kind in StopKind])),
            saved.text("sentence"),
            saved.text("condition", ""),
            saved.mapping("numbers", {}),
            saved.integer("last_good") if "last_good" in value else None,
        )


def first(stops: Iterable[Stopped | None]) -> Stopped | None:
    """Return the stop of the highest precedence, or None where nothing fired."""
    fired = [stop for stop in stops if stop is not None]
    return min(fired, key=lambda stop: PRECEDENCE.index(stop.kind)) if fired else None
