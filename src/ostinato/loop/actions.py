"""The four actions that answer a stop, and the history that a strategy decides from."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

from ostinato.arguments import counted
from ostinato.errors import InputError
from ostinato.journal import JSON, Fields, Stopped
from ostinato.loop.check import Verdict
from ostinato.loop.process import Lane
from ostinato.loop.timeline import Edits

OUT_OF_ROUNDS = "out_of_rounds"
"""The name of a mark in an action, and in the numbers of the stop that it answered."""

SHOWN = 16
"""Tensors of more elements than this are shown by their shape in an action's JSON."""


def _outlined(value: Any) -> JSON:
    """Return an edit's value as an action shows it: of a large tensor, such as an image, its shape.

    Nothing is lost: the lane's edits are saved whole, and an action is only for people to read.
    """
    if hasattr(value, "tolist") and math.prod(getattr(value, "shape", ())) > SHOWN:
        return {"shape": list(value.shape), "dtype": str(value.dtype).removeprefix("torch.")}
    shown: JSON = value
    return shown


@dataclass(frozen=True, slots=True)
class Accept:
    """Accept the stop: the loop or lane is done."""

    name: ClassVar[str] = "accept"

    def to_json(self) -> dict[str, JSON]:
        """Return the action as a JSON object."""
        return {"answer": self.name}


@dataclass(frozen=True, slots=True)
class GoBack:
    """Go back to position `to` (None: the last checkpoint) with something changed there."""

    name: ClassVar[str] = "go back"
    to: int | None = None
    edits: Edits = field(default_factory=dict)
    reason: str = ""

    def to_json(self) -> dict[str, JSON]:
        """Return the action as a JSON object."""
        edits = {name: _outlined(value) for name, value in self.edits.items()}
        return {"answer": self.name, "to": self.to, "edits": edits, "reason": self.reason}


@dataclass(frozen=True, slots=True)
class StartOver:
    """Start another round, with edits that hold from its start."""

    name: ClassVar[str] = "start over"
    edits: Edits = field(default_factory=dict)
    reason: str = ""

    def to_json(self) -> dict[str, JSON]:
        """Return the action as a JSON object."""
        edits = {name: _outlined(value) for name, value in self.edits.items()}
        return {"answer": self.name, "edits": edits, "reason": self.reason}


@dataclass(frozen=True, slots=True)
class GiveUp:
    """Return the best output so far, marked as not accepted.

    `out_of_rounds`: only because no other round is allowed.
    """

    name: ClassVar[str] = "give up"
    reason: str = ""
    out_of_rounds: bool = False

    def to_json(self) -> dict[str, JSON]:
        """Return the action as a JSON object."""
        action: dict[str, JSON] = {"answer": self.name, "reason": self.reason}
        return action | ({OUT_OF_ROUNDS: True} if self.out_of_rounds else {})


Action = Accept | GoBack | StartOver | GiveUp


def action_from_json(value: Mapping[str, object]) -> Action:
    """Read back what an action's `to_json` wrote."""
    saved = Fields(value)
    reason, edits = saved.text("reason", ""), saved.mapping("edits", {})
    match saved.text("answer"):
        case "accept":
            return Accept()
        case "go back":
            return GoBack(None if value["to"] is None else saved.integer("to"), edits, reason)
        case "start over":
            return StartOver(edits, reason)
        case _:
            return GiveUp(reason, saved.flag(OUT_OF_ROUNDS, False))


@dataclass(frozen=True, slots=True)
class Attempt:
    """One stop of a draft and the action that answered it.

    `kept` is how many characters of the text are left after going back; None where not known.
    """

    round: int
    backtracks: int
    position: int
    stopped: Stopped
    action: Action
    text: str = ""
    verdicts: tuple[Verdict, ...] = ()
    kept: int | None = None

    @property
    def edits(self) -> Edits:
        """What its action changed."""
        return self.action.edits if isinstance(self.action, GoBack | StartOver) else {}

    def to_json(self) -> dict[str, JSON]:
        """Return the attempt as a JSON object."""
        return {
            "round": self.round,
            "try": self.backtracks,
            "position": self.position,
            "stopped": self.stopped.to_json(),
            "answer": self.action.to_json(),
            "text": self.text,
            "verdicts": [verdict.to_json() for verdict in self.verdicts],
            "kept": self.kept,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, object]) -> Attempt:
        """Read back what `to_json` wrote."""
        saved = Fields(value)
        return cls(
            round=saved.integer("round"),
            backtracks=saved.integer("try"),
            position=saved.integer("position"),
            stopped=Stopped.from_json(saved.mapping("stopped")),
            action=action_from_json(saved.mapping("answer")),
            text=saved.text("text"),
            verdicts=tuple(Verdict.from_json(each.value) for each in saved.objects("verdicts", [])),
            kept=saved.integer("kept") if value.get("kept") is not None else None,
        )


@dataclass(frozen=True, slots=True)
class History:
    """What a strategy may look at: the draft so far, and all attempts before it.

    `output` is the draft (for text an `ostinato.loop.Text`, with the offset of each token);
    `verdicts` are those on the whole draft, where it had ended; `spent` are the cost metrics so
    far, which going back does not reduce. `marks` are the checkpoints to return to, oldest first:
    the position of each, and how many attempts came before it.
    """

    position: int
    attempts: tuple[Attempt, ...] = ()
    output: object = None
    item: object = None
    lane: Lane = field(default_factory=lambda: Lane(""))
    verdicts: tuple[Verdict, ...] = ()
    spent: Mapping[str, float] = field(default_factory=dict)
    marks: tuple[tuple[int, int], ...] = ()

    def since_checkpoint(self) -> list[GoBack]:
        """Return how it went back since the last checkpoint, which knows nothing of that."""
        before = self.marks[-1][1] if self.marks else 0
        actions = [attempt.action for attempt in self.attempts[before:]]
        return [action for action in actions if isinstance(action, GoBack)]

    def returning(self, to: int) -> History:
        """Return the history without checkpoints past a position, as after going back to it."""
        return replace(self, marks=tuple(mark for mark in self.marks if mark[0] <= to))

    def backtracks(self, *, to: int | None = None, round: int | None = None) -> int:
        """Count the attempts that went back (to position `to`; in `round`)."""
        return sum(
            isinstance(attempt.action, GoBack)
            and (to is None or attempt.action.to == to)
            and (round is None or attempt.round == round)
            for attempt in self.attempts
        )


OnStop = Callable[[Stopped, History], Action]
"""A strategy: a pure function of the stop and the history."""


def answered(on_stop: OnStop, stopped: Stopped, history: History) -> Action:
    """Return a strategy's action. Raises `InputError` for anything else that it returns."""
    action = on_stop(stopped, history)
    if not isinstance(action, Action):
        raise InputError(
            "A strategy must return Accept(), GoBack(…), StartOver() or GiveUp(), got "
            f"{action!r:.80}. Return Accept() where it changes nothing."
        )
    return action


def accept(stopped: Stopped, history: History) -> Action:
    """Accept every stop."""
    return Accept()


def go_back(
    *,
    kinds: tuple[str, ...] = ("diverged",),
    times: int = 3,
    to: int | None = None,
    **edits: object,
) -> OnStop:
    """Make a strategy that goes back to a checkpoint, at most `times` times, with `edits` applied.

    It is the last one up to position `to`; by default, the last one before the trouble began, as
    far as the stop knows that (`Stopped.last_good`). A checkpoint knows nothing of what was tried
    after it. So an edit whose value must be another each time is a function of (stopped, history)
    that returns the value.
    """

    def strategy(stopped: Stopped, history: History) -> Action:
        if stopped.kind not in kinds:
            return Accept()
        if history.backtracks() >= times:
            return GiveUp(f"It went back {counted(times, 'times')} and {stopped.kind} again.")
        target = stopped.last_good if to is None else to
        known = history if target is None else history.returning(target)
        values = {
            name: value(stopped, known) if callable(value) else value
            for name, value in edits.items()
        }
        return GoBack(target, values, stopped.sentence)

    return strategy
