"""What became of an item of lanes. Knows no process; as JSON it is a row of the journal."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ostinato.journal import Fields, Stopped
from ostinato.loop.actions import Attempt
from ostinato.loop.check import Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class LaneResult:
    """The result of an item: the accepted draft, else the best one.

    `output`, `verdicts`, `length` and `logprob` are that draft's; a text that comes from a saved
    state has forgotten its tokens. `rounds`, `backtracks`, `spent` and `attempts` are of all
    drafts. `by_clock`: a time limit ended it, so computing again could give another result.
    `carried`: it was taken over from another run.
    """

    key: str
    index: int
    output: Any  # what the lane process makes: a text, a tensor
    accepted: bool
    stopped: Stopped
    verdicts: tuple[Verdict, ...] = ()
    rounds: int = 1
    backtracks: int = 0
    length: int = 0
    logprob: float = 0.0
    spent: Mapping[str, float] = field(default_factory=dict)
    attempts: tuple[Attempt, ...] = ()
    by_clock: bool = False
    carried: bool = False

    def to_json(self) -> dict[str, object]:
        """Return the row that the journal keeps; it encodes an output that is a tensor."""
        row = {
            "key": self.key,
            "index": self.index,
            "output": str(self.output) if isinstance(self.output, str) else self.output,
            "accepted": self.accepted,
            "stopped": self.stopped.to_json(),
            "verdicts": [verdict.to_json() for verdict in self.verdicts],
            "rounds": self.rounds,
            "backtracks": self.backtracks,
            "length": self.length,
            "logprob": self.logprob,
            "spent": dict(self.spent),
            "attempts": [attempt.to_json() for attempt in self.attempts],
        }
        rare = {"by_clock": self.by_clock, "carried": self.carried}
        return row | {name: value for name, value in rare.items() if value}

    @classmethod
    def from_json(cls, row: Mapping[str, object]) -> LaneResult:
        """Read a row of a journal; older ones lack some of the fields."""
        saved = Fields(row)
        return cls(
            key=saved.text("key", ""),
            index=saved.integer("index", 0),
            output=row.get("output"),
            accepted=saved.flag("accepted"),
            stopped=Stopped.from_json(saved.mapping("stopped")),
            verdicts=tuple(Verdict.from_json(each.value) for each in saved.objects("verdicts", [])),
            rounds=saved.integer("rounds", 1),
            # Older rows call them tries.
            backtracks=saved.integer(
                "backtracks" if "backtracks" in saved else "tries", 0
            ),  # older
            length=saved.integer("length", 0),
            logprob=saved.number("logprob", 0.0),
            spent=saved.mapping("spent", {}),
            attempts=tuple(Attempt.from_json(each.value) for each in saved.objects("attempts", [])),
            by_clock=saved.flag("by_clock", False),
            carried=saved.flag("carried", False),
        )
