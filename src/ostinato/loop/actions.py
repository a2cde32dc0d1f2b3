"""The four answers to a stop, and the value that a strategy answers from."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from ostinato.journal import JSON, Stopped
from ostinato.loop.check import Verdict
from ostinato.loop.process import Edits, Lane

TOLD = 16
"""Tensors of more elements than this are told by their shape in an answer's JSON."""


def _outlined(value: Any) -> JSON:
    """Return an edit's value as an answer tells it: of a tensor (an image, say) its shape alone.

    A lane's edits hold it whole where they are saved; an answer is only read.
    """
    if hasattr(value, "tolist") and math.prod(getattr(value, "shape", ())) > TOLD:
        return {"shape": list(value.shape), "dtype": str(value.dtype).removeprefix("torch.")}
    told: JSON = value
    return told


@dataclass(frozen=True, slots=True)
class Accept:
    """The stop stands: the loop or lane is done."""

    def to_json(self) -> dict[str, JSON]:
        """Return the answer as a JSON object."""
        return {"answer": "accept"}


@dataclass(frozen=True, slots=True)
class GoBack:
    """Go back to position `to` (None: the last checkpoint) with something changed there."""

    to: int | None = None
    edits: Edits = field(default_factory=dict)
    reason: str = ""

    def to_json(self) -> dict[str, JSON]:
        """Return the answer as a JSON object."""
        edits = {name: _outlined(value) for name, value in self.edits.items()}
        return {"answer": "go back", "to": self.to, "edits": edits, "reason": self.reason}


@dataclass(frozen=True, slots=True)
class StartOver:
    """Begin another round, with edits that hold from its beginning."""

    edits: Edits = field(default_factory=dict)
    reason: str = ""

    def to_json(self) -> dict[str, JSON]:
        """Return the answer as a JSON object."""
        edits = {name: _outlined(value) for name, value in self.edits.items()}
        return {"answer": "start over", "edits": edits, "reason": self.reason}


@dataclass(frozen=True, slots=True)
class GiveUp:
    """Give the best so far, marked as not accepted."""

    reason: str = ""

    def to_json(self) -> dict[str, JSON]:
        """Return the answer as a JSON object."""
        return {"answer": "give up", "reason": self.reason}


Action = Accept | GoBack | StartOver | GiveUp


def action_from_json(value: Mapping[str, object]) -> Action:
    """Read back what an answer's `to_json` wrote."""
    reason = str(value.get("reason", ""))
    edits = value.get("edits")
    edits = edits if isinstance(edits, dict) else {}
    to = value.get("to")
    match value["answer"]:
        case "accept":
            return Accept()
        case "go back":
            return GoBack(to if isinstance(to, int) else None, edits, reason)
        case "start over":
            return StartOver(edits, reason)
        case _:
            return GiveUp(reason)


@dataclass(frozen=True, slots=True)
class Attempt:
    """One stop of a draft, and what was answered: the history that a strategy sees.

    `kept` is how many characters of the text stand after a going back; None where not known.
    """

    round: int
    backtracks: int
    position: int
    stopped: Stopped
    answer: Action
    text: str = ""
    verdicts: tuple[Verdict, ...] = ()
    kept: int | None = None

    def to_json(self) -> dict[str, JSON]:
        """Return the attempt as a JSON object."""
        return {
            "round": self.round,
            "try": self.backtracks,
            "position": self.position,
            "stopped": self.stopped.to_json(),
            "answer": self.answer.to_json(),
            "text": self.text,
            "verdicts": [verdict.to_json() for verdict in self.verdicts],
            "kept": self.kept,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, object]) -> Attempt:
        """Read back what `to_json` wrote."""
        stopped, answer, verdicts = value["stopped"], value["answer"], value["verdicts"]
        kept = value.get("kept")
        assert isinstance(stopped, dict) and isinstance(answer, dict)
        assert isinstance(verdicts, list)
        return cls(
            round=int(value["round"]),  # type: ignore[call-overload]
            backtracks=int(value["try"]),  # type: ignore[call-overload]
            position=int(value["position"]),  # type: ignore[call-overload]
            stopped=Stopped.from_json(stopped),
            answer=action_from_json(answer),
            text=str(value["text"]),
            verdicts=tuple(Verdict.from_json(verdict) for verdict in verdicts),
            kept=kept if isinstance(kept, int) else None,
        )


@dataclass(frozen=True, slots=True)
class History:
    """What a strategy may look at: the draft as it stands, and all answers given before.

    `output` is the draft (for text an `ostinato.loop.Text`, with each token's place); `verdicts`
    are those of the whole checks where the draft had ended; `spent` adds up the numbers that going
    back does not give back. `marked` is how many attempts came before the last checkpoint.
    """

    position: int
    attempts: tuple[Attempt, ...] = ()
    output: object = None
    item: object = None
    lane: Lane = field(default_factory=lambda: Lane(""))
    verdicts: tuple[Verdict, ...] = ()
    spent: Mapping[str, float] = field(default_factory=dict)
    marked: int = 0

    def backtracks(self, *, to: int | None = None, round: int | None = None) -> int:
        """Count the goings back (to position `to`; in `round`)."""
        return sum(
            isinstance(attempt.answer, GoBack)
            and (to is None or attempt.answer.to == to)
            and (round is None or attempt.round == round)
            for attempt in self.attempts
        )


OnStop = Callable[[Stopped, History], Action]
"""A strategy: a pure function of the stop and of what was tried."""


def accept(stopped: Stopped, history: History) -> Action:
    """Let every stop stand."""
    return Accept()


def go_back(
    *,
    kinds: tuple[str, ...] = ("diverged",),
    times: int = 3,
    to: int | None = None,
    **edits: object,
) -> OnStop:
    """Make a strategy that goes back to a checkpoint, at most `times` times, with `edits` applied.

    `go_back(lr_scale=0.5)` halves a learning rate after a loss that diverged. A checkpoint knows
    nothing of what was tried after it: so an edit named `…_scale` is applied once more for each
    going back to the same one (0.5, 0.25, 0.125). `skip=1` leaves out what the step that stopped
    has seen (2: and the step after it): the process is given `skip_steps`, pairs of a position and
    a number of steps, one for each going back to the same checkpoint.
    """

    def answer(stopped: Stopped, history: History) -> Action:
        if stopped.kind not in kinds:
            return Accept()
        if history.backtracks() >= times:
            return GiveUp(f"It went back {times} times and {stopped.kind} again.")
        answers = [attempt.answer for attempt in history.attempts[history.marked :]]
        since = [one for one in answers if isinstance(one, GoBack)]
        now = _compounded(edits, len(since) + 1)
        if "skip" in now:
            before = cast(list[object], since[-1].edits["skip_steps"] if since else [])
            now["skip_steps"] = [*before, [history.position, now.pop("skip")]]
        return GoBack(to, now, stopped.sentence)

    return answer


def _compounded(edits: Edits, times: int) -> dict[str, object]:
    return {
        name: value**times if name.endswith("_scale") and isinstance(value, float) else value
        for name, value in edits.items()
    }
