"""What to do about a draft that is not good enough: strategies, pure functions of what was tried.

`resample` and `feedback` judge whole drafts; `abort` and `backtrack` act while a draft is written,
at the first token after which a check can no longer be met.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from ostinato.errors import InputError
from ostinato.journal import Stopped
from ostinato.loop import Action, Check, GiveUp, History, LaneProcess, OnStop, StartOver

if TYPE_CHECKING:
    from ostinato.decode import Decode


@dataclass(frozen=True)
class SteeringContext:
    """What a strategy may know of the text it steers: its tokenizer, its end, its checks.

    `end` is the end token, None where the model has none; `time_limit` is that of a judgment,
    and `late` the names of the checks that took longer to look ahead. `continues` tells whether
    the model can go on from any place of a text, as some servers cannot; `costly` whether a token
    has cost something as soon as it is drawn, as a server's has. `sign` gives the number by which
    is noted how likely a text began at a place (`Text.tracked_logprobs`); None: that of its first token.
    """

    encode: Callable[[str], Sequence[int]]
    end: int | None
    checks: Sequence[Check]
    time_limit: float = 10.0
    late: set[str] = field(default_factory=set, compare=False)
    continues: bool = True
    costly: bool = False
    sign: Callable[[str], int] | None = None

    def sign_of(self, text: str) -> int:
        """Return the number by which it is noted how likely a text began at a place."""
        return self.encode(text)[0] if self.sign is None else self.sign(text)


@dataclass(frozen=True, kw_only=True)
class Strategy:
    """A strategy's options; `on_stop` makes the pure function that answers stops.

    `checks_prefixes` tells whether drafts are ended as soon as a check can no longer be met, `tells`
    whether the prompt of another round holds the last draft; `masks` whether checks become masks
    over tokens, `weighs` whether they weigh drafts written side by side, `rejects` whether they end
    the hopeless ones of these.
    """

    kind: ClassVar[str]
    checks_prefixes: ClassVar[bool] = False
    tells: ClassVar[bool] = False
    masks: ClassVar[bool] = False
    weighs: ClassVar[bool] = False
    rejects: ClassVar[bool] = False

    rounds: int = 8

    def __post_init__(self) -> None:
        if self.rounds < 1:
            raise InputError(f"A strategy's rounds must be at least 1, got {self.rounds}.")

    @property
    def lanes(self) -> int:
        """The lanes of `Decode` that an item takes."""
        return 1

    def process(self, decode: Decode, words: SteeringContext) -> LaneProcess:
        """Return the process whose lanes are the items: `Decode` itself, or groups of its lanes."""
        return decode

    def steps(self, limit: int) -> int:
        """Return after how many steps an item's round is cut, where a draft may have `limit`."""
        return limit

    def on_stop(self, words: SteeringContext) -> OnStop:
        """Return the function that answers a stop that is not good enough: by another round."""

        def answer(stopped: Stopped, history: History) -> Action:
            return self.another_round(history, {}, stopped.sentence)

        return answer

    def another_round(self, history: History, edits: Mapping[str, object], reason: str) -> Action:
        """Start over while rounds are left, else give up."""
        if history.lane.round + 1 >= self.rounds:
            count = "the only round" if self.rounds == 1 else f"all {self.rounds} rounds"
            return GiveUp(f"It is out of rounds: {count} failed.")
        return StartOver(edits, reason)


@dataclass(frozen=True, kw_only=True)
class Resample(Strategy):
    """Write the whole draft again with other random numbers, until one passes."""

    kind: ClassVar[str] = "resample"


@dataclass(frozen=True, kw_only=True)
class Feedback(Strategy):
    """Put the last draft and what to mend into the next prompt (only the last, not all drafts)."""

    kind: ClassVar[str] = "feedback"
    tells: ClassVar[bool] = True

    def on_stop(self, words: SteeringContext) -> OnStop:
        """Return the strategy's function."""

        def answer(stopped: Stopped, history: History) -> Action:
            bad = [verdict for verdict in history.verdicts if not verdict.passed]
            reasons = [verdict.error or verdict.message for verdict in bad] or [stopped.sentence]
            feedback = {"draft": str(history.output), "reasons": reasons}
            return self.another_round(history, {"feedback": feedback}, stopped.sentence)

        return answer


@dataclass(frozen=True, kw_only=True)
class Abort(Strategy):
    """Stop a draft at the first token that makes a check impossible, then write it anew."""

    kind: ClassVar[str] = "abort"
    checks_prefixes: ClassVar[bool] = True
