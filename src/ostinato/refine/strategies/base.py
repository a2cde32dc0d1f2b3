"""What to do about a draft that fails: strategies, pure functions of the stop and of the history.

`resample` and `feedback` judge whole drafts. `abort` and `backtrack` act during generation, at the
first token after which a check cannot be met. Knows no model: `SteeringContext` has what is needed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from ostinato.arguments import require_at_least, require_types
from ostinato.checks import check_prefix_all, required_by
from ostinato.journal import JSON, StopKind, Stopped
from ostinato.loop import (
    Action,
    Check,
    Condition,
    GiveUp,
    History,
    Item,
    LaneProcess,
    OnStop,
    StartOver,
    Step,
    is_end,
)

if TYPE_CHECKING:
    from ostinato.decode import Decode

"""Starts the sentence of an item that failed in all of its rounds; reports group by it."""


@dataclass(frozen=True)
class SteeringContext:
    """What a strategy may know about the text it steers: its tokenizer, its end token, its checks.

    `end` is the id of the end token, None if the model has none. `time_limit` is in seconds for one
    judgment. `late` collects the names of checks whose prefix verdict exceeded it.

    `can_continue`: whether the model can continue from any prefix; some servers cannot.
    `pays_per_token`: whether a token costs something as soon as it is sampled, as on a server. In
    this process, a token costs nothing until it runs through the network.

    `tracking_id` returns the key of a text in `Text.tracked_logprobs`; None: its first token.
    """

    encode: Callable[[str], Sequence[int]]
    end: int | None
    checks: Sequence[Check]
    time_limit: float = 10.0
    late: set[str] = field(default_factory=set, compare=False)
    can_continue: bool = True
    pays_per_token: bool = False
    tracking_id: Callable[[str], int] | None = None

    def tracking_id_of(self, text: str) -> int:
        """Return the key under which `Text.tracked_logprobs` records how likely `text` began."""
        return self.encode(text)[0] if self.tracking_id is None else self.tracking_id(text)

    def required_texts(self, columns: Mapping[str, object]) -> list[str]:
        """Return the texts that may be inserted for an item, with and without a leading space.

        A tokenizer has different tokens for the two.
        """
        # An empty text lacks everything that is required. Of alternatives, which may be thousands,
        # only the first is inserted.
        required = required_by(self.checks, "", columns, self.time_limit, self.late)
        return [spaced for one in required for spaced in (one.texts[0], f" {one.texts[0]}")]

    def required_ids(self, columns: Mapping[str, object]) -> list[int]:
        """Return the tracking ids of the required texts; `Backtrack` reads how likely each was."""
        return sorted({self.tracking_id_of(text) for text in self.required_texts(columns)})


@dataclass(frozen=True, kw_only=True)
class Strategy:
    """A strategy's options; `on_stop` makes the pure function that answers stops.

    `checks_prefixes`: a draft ends as soon as a check can no longer be met. `gives_feedback`: the
    prompt of the next round contains the last draft. `masks`: checks become masks over tokens.
    `weighs`: checks weigh drafts written in parallel. `rejects`: checks end hopeless drafts among
    those. `rounds` is the maximum number of drafts of an item.
    """

    kind: ClassVar[str]
    checks_prefixes: ClassVar[bool] = False
    gives_feedback: ClassVar[bool] = False
    masks: ClassVar[bool] = False
    weighs: ClassVar[bool] = False
    rejects: ClassVar[bool] = False

    rounds: int = 8

    def __post_init__(self) -> None:
        require_types(self)
        require_at_least(1, "Set it to 1 or more.", rounds=self.rounds)

    @property
    def lanes(self) -> int:
        """How many lanes of `Decode` one item takes."""
        return 1

    def process(self, decode: Decode, context: SteeringContext) -> LaneProcess:
        """Return the process whose lanes are the items: `Decode` itself, or groups of its lanes."""
        return decode

    def steps(self, limit: int) -> int:
        """Return the maximum steps of a round whose drafts have at most `limit` tokens."""
        return limit

    def on_stop(self, context: SteeringContext) -> OnStop:
        """Return the function that answers a failed draft; by default with another round."""

        def answer(stopped: Stopped, history: History) -> Action:
            return self.another_round(history, {}, stopped.sentence)

        return answer

    def another_round(self, history: History, edits: Mapping[str, object], reason: str) -> Action:
        """Return `StartOver` while rounds are left, else `GiveUp`."""
        # Rounds count from 0.
        if history.lane.round + 1 >= self.rounds:
            count = "the only round" if self.rounds == 1 else f"all {self.rounds} rounds"
            return GiveUp(f"It is out of rounds: {count} failed.", out_of_rounds=True)
        return StartOver(edits, reason)


@dataclass(frozen=True, kw_only=True)
class Resample(Strategy):
    """Rejection sampling: write the whole draft again with other random numbers until one passes.

    Accepted texts are samples of the model's distribution, conditioned on passing.
    """

    kind: ClassVar[str] = "resample"


@dataclass(frozen=True, kw_only=True)
class Feedback(Strategy):
    """Put the last draft and the reasons why it failed into the next prompt.

    After Self-Refine (Madaan et al. 2023, arXiv 2303.17651), with checks in place of the model's
    own critique. Only the last draft is shown, so that the prompt does not grow with the rounds.
    """

    kind: ClassVar[str] = "feedback"
    gives_feedback: ClassVar[bool] = True

    def on_stop(self, context: SteeringContext) -> OnStop:
        """Return the function that answers with `StartOver` and the edit `feedback`."""

        def answer(stopped: Stopped, history: History) -> Action:
            failed = [verdict for verdict in history.verdicts if not verdict.passed]
            reasons = [verdict.error or verdict.message for verdict in failed]
            # A draft that was aborted has no verdicts: the stop is the only reason.
            feedback = {"draft": str(history.output), "reasons": reasons or [stopped.sentence]}
            return self.another_round(history, {"feedback": feedback}, stopped.sentence)

        return answer


@dataclass(frozen=True, kw_only=True)
class Abort(Strategy):
    """Stop a draft at the first token that makes a check impossible, then start another round."""

    kind: ClassVar[str] = "abort"
    checks_prefixes: ClassVar[bool] = True


@dataclass(frozen=True)
class StillPassable(Condition):
    """Fires with the kind `failed` as soon as no continuation can pass one of the checks.

    `time_limit` is in seconds for one prefix verdict: every lane waits for it. A check that exceeds
    it is added to `late`, and judges only whole drafts for the rest of the run.
    """

    checks: tuple[Check, ...]
    time_limit: float = 10.0
    late: set[str] = field(default_factory=set, compare=False, repr=False)

    def observe(self, state: JSON, step: Step) -> tuple[JSON, Stopped | None]:
        """Check the output as a prefix of the item's, which are its columns."""
        return None, self.stop_of(step, step.item if isinstance(step.item, Mapping) else {})

    def stop_of(self, step: Step, item: Item) -> Stopped | None:
        """Return the stop of a prefix that cannot be mended, judged with an item's columns.

        A draft that has ended is judged as a whole instead.
        """
        if is_end(step.report):
            return None
        found = check_prefix_all(self.checks, step.output, item, self.time_limit, self.late)
        if found is None:
            return None
        check, verdict = found
        # `Backtrack` reads these to find the token at which the offending part starts.
        numbers: dict[str, JSON] = {}
        if verdict.span is not None:
            numbers = {"start": verdict.span.start, "end": verdict.span.end}
        sentence = f"{check.name}: {verdict.message or 'it can no longer be met.'}"
        return Stopped(StopKind.FAILED, sentence, check.name, numbers)

    def __str__(self) -> str:
        # Checkpoints hold it, and a resume compares it: another time limit must not prevent one.
        return f"StillPassable({', '.join(check.name for check in self.checks)})"
