"""One item during generation: its tokens as they come, struck out when taken back."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from rich.text import Text

from ostinato.journal import Stopped
from ostinato.loop import Action, GoBack, LaneStep, StartOver, Step


@dataclass
class Watched:
    """Follows one item at a time: when it is done, the next one that starts.

    `pieces` are the texts of the current tokens. `struck` holds the texts that were taken back,
    each with the number of pieces before it.
    """

    key: str = ""
    pieces: list[str] = field(default_factory=list)
    struck: list[tuple[int, str]] = field(default_factory=list)
    outcome: str = ""

    def plain(self, step: Step) -> Iterator[str]:
        """Yield the output of a step for a stream, with `[-text-]` for text that is taken back."""
        lane = self._lane(step)
        if lane is None:
            return
        if self._starts(lane):
            yield f"{self.key}: "
        yield self._add(lane)
        if isinstance(lane.action, GoBack | StartOver):
            yield f"[-{self._strike(lane.action)}-]"
            if isinstance(lane.action, StartOver):
                yield f"\n{self.key}, again: "
        elif lane.action is not None:
            yield f"\n  {_sentence(lane)}\n"
            self.key = ""

    def finished(self, step: Step) -> list[Text]:
        """Record a step; return the item's text if the step has finished it."""
        lane = self._lane(step)
        if lane is None:
            return []
        self._add(lane)
        if isinstance(lane.action, GoBack | StartOver):
            self._strike(lane.action)
        elif lane.action is not None:
            self.outcome = _sentence(lane)
            done = self.text()
            self.key, self.pieces, self.struck = "", [], []
            return [done]
        return []

    def text(self) -> Text:
        """Return the item's text, with the texts that were taken back struck out in place."""
        text = Text()
        if not self.pieces and not self.struck:
            return text
        text.append(f"{self.key}  ", style="bold")
        # Sorted by position; texts taken back at the same one stay in the order of the attempts.
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
        """Return the step of the watched lane, or of a lane that starts if none is watched."""
        # Only a lane at its first token: of one that is watched from the middle the start is lost.
        if not self.key:
            self.key = next((key for key, lane in step.lanes.items() if lane.position == 1), "")
            self.pieces, self.struck, self.outcome = [], [], ""
        return step.lanes.get(self.key) if self.key else None

    def _starts(self, lane: LaneStep) -> bool:
        return lane.position == 1 and not self.pieces and not self.struck

    def _add(self, lane: LaneStep) -> str:
        piece = str(lane.report.get("text", ""))
        self.pieces.append(piece)
        return piece

    def _strike(self, answer: Action) -> str:
        """Take back the tokens that the answer takes back, and return their text."""
        to = 0
        if isinstance(answer, GoBack):
            to = len(self.pieces) if answer.to is None else answer.to
        taken = "".join(self.pieces[to:])
        del self.pieces[to:]
        self.struck.append((to, f"{taken}\n" if isinstance(answer, StartOver) else taken))
        return taken


def _sentence(lane: LaneStep) -> str:
    return lane.stopped.sentence if isinstance(lane.stopped, Stopped) else ""
