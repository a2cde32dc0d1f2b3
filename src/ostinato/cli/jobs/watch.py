"""One item watched while it is written: its tokens as they come, struck out when taken back."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from rich.text import Text

from ostinato.journal import Stopped
from ostinato.loop import Action, GoBack, LaneStep, StartOver, Step


@dataclass
class Watched:
    """Follows one item after another: when one is done, the next that begins.

    `pieces` are the texts of the tokens that stand; `struck` what was taken back, with how many
    pieces stood before it.
    """

    key: str = ""
    pieces: list[str] = field(default_factory=list)
    struck: list[tuple[int, str]] = field(default_factory=list)
    outcome: str = ""

    def plain(self, step: Step) -> Iterator[str]:
        """Yield what a stream shows of a step: `[-taken back-]` stands for what is struck out."""
        lane = self._lane(step)
        if lane is None:
            return
        if self._begins(lane):
            yield f"{self.key}: "
        yield self._add(lane)
        if isinstance(lane.answer, GoBack | StartOver):
            yield f"[-{self._strike(lane.answer)}-]"
            if isinstance(lane.answer, StartOver):
                yield f"\n{self.key}, again: "
        elif lane.answer is not None:
            yield f"\n  {_sentence(lane)}\n"
            self.key = ""

    def take(self, step: Step) -> list[Text]:
        """Take note of a step; return the item's text where it is done."""
        lane = self._lane(step)
        if lane is None:
            return []
        self._begins(lane)
        self._add(lane)
        if isinstance(lane.answer, GoBack | StartOver):
            self._strike(lane.answer)
        elif lane.answer is not None:
            self.outcome = _sentence(lane)
            done = self.drawn()
            self.key, self.pieces, self.struck = "", [], []
            return [done]
        return []

    def drawn(self) -> Text:
        """Return the item as it stands, with what was taken back struck out where it stood."""
        text = Text()
        if not self.pieces and not self.struck:
            return text
        text.append(f"{self.key}  ", style="bold")
        struck = sorted(self.struck, key=lambda one: one[0])
        for at in range(len(self.pieces) + 1):
            while struck and struck[0][0] <= at:
                text.append(struck.pop(0)[1], style="strike red")
            if at < len(self.pieces):
                text.append(self.pieces[at])
        if self.outcome:
            text.append(f"\n  {self.outcome}", style="dim")
        return text

    # Inside -----------------------------------------------------------------------------------

    def _lane(self, step: Step) -> LaneStep | None:
        """Return what the step did to the watched lane; choose one where none is watched."""
        if not self.key:
            self.key = next((key for key, lane in step.lanes.items() if lane.position == 1), "")
            self.pieces, self.struck, self.outcome = [], [], ""
        return step.lanes.get(self.key) if self.key else None

    def _begins(self, lane: LaneStep) -> bool:
        return lane.position == 1 and not self.pieces and not self.struck

    def _add(self, lane: LaneStep) -> str:
        piece = str(lane.report.get("text", ""))
        self.pieces.append(piece)
        return piece

    def _strike(self, answer: Action) -> str:
        """Take back what the answer takes back, and return its text."""
        to = 0
        if isinstance(answer, GoBack):
            to = len(self.pieces) if answer.to is None else answer.to
        taken = "".join(self.pieces[to:])
        del self.pieces[to:]
        self.struck.append((to, f"{taken}\n" if isinstance(answer, StartOver) else taken))
        return taken


def _sentence(lane: LaneStep) -> str:
    return lane.stopped.sentence if isinstance(lane.stopped, Stopped) else ""
