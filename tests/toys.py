"""Small processes for the engine's tests: they compute little, but hold real state."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from ostinato.errors import EditError, ItemError
from ostinato.loop import Edits, Lane, Report, Text, uniform


def slowly(seconds: float) -> Callable[[Any], bool]:
    """Return a condition that takes time and never holds: steps become long enough to be killed."""

    def condition(step: Any) -> bool:
        time.sleep(seconds)
        return False

    return condition


class Walk:
    """A random walk: a plain process whose draws are a function of (seed, position)."""

    def __init__(self, seed: int = 0, rate: float = 1.0) -> None:
        self.seed, self.rate = seed, rate
        self.place, self.steps = 0.0, 0

    def step(self) -> Report:
        self.place += self.rate * (uniform(self.seed, "walk", 0, 0, self.steps) - 0.5)
        self.steps += 1
        return {"place": self.place, "epoch": self.steps / 10, "tokens": 1}

    def state_dict(self) -> dict[str, object]:
        return {"place": self.place, "steps": self.steps, "rate": self.rate}

    def load_state_dict(self, state: dict[str, object]) -> None:
        self.place, self.steps = state["place"], state["steps"]  # type: ignore[assignment]
        self.rate = state["rate"]  # type: ignore[assignment]

    def change(self, edits: Edits) -> None:
        for name, value in edits.items():
            if name != "rate" or not isinstance(value, float):
                raise EditError(f"Unknown edit {name!r} of a walk. Known: rate (a number).")
            self.rate = value


LETTERS = "abcdefgh."


class Speller:
    """A lane process that writes random letters; `.` ends a text. Edits: forbid."""

    deterministic = True
    costs: tuple[str, ...] = ("tokens",)
    unit = "tokens"

    def __init__(self, slots: int = 4) -> None:
        self.slots = slots
        self._lanes: dict[str, Lane] = {}
        self._texts: dict[str, str] = {}
        self.computed = 0

    def start(self, lane: Lane, item: object) -> None:
        if item == "broken":
            raise ItemError("This item is broken.")
        assert len(self._lanes) < self.slots
        self._refuse_unknown(lane)
        self._lanes[lane.key] = lane
        self._texts[lane.key] = "".join(str(report["letter"]) for report in lane.past)

    def step(self) -> Mapping[str, Report]:
        reports = {}
        for key, text in self._texts.items():
            if text.endswith("."):
                continue
            letter = self._draw(self._lanes[key], len(text))
            self._texts[key] = text + letter
            self.computed += 1
            reports[key] = {"letter": letter, "tokens": 1}
            if letter == ".":
                reports[key]["ended"] = "It wrote a full stop."
        return reports

    def _draw(self, lane: Lane, position: int) -> str:
        forbidden = {
            letter
            for edits in lane.edits.at(position)
            for letter in edits.get("forbid", ())  # type: ignore[attr-defined]
        }
        left = [letter for letter in LETTERS if letter not in forbidden]
        draw = uniform(lane.seed, lane.key, lane.round, lane.backtracks, position)
        return left[int(draw * len(left))]

    def _refuse_unknown(self, lane: Lane) -> None:
        lane.edits.check("a speller", {"forbid"}, lambda name, value: None)

    def rewind(self, lane: Lane, to: int) -> None:
        self._refuse_unknown(lane)
        self._lanes[lane.key] = lane
        self._texts[lane.key] = self._texts[lane.key][:to]

    def output(self, key: str) -> Text:
        text = self._texts[key]
        return Text(text, tuple(text.encode()), range(len(text)), ended=text.endswith("."))

    def drop(self, key: str) -> None:
        del self._lanes[key], self._texts[key]
