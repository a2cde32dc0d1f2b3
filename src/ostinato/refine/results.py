"""Results: one row for each finished item, and the output file with the rows in input order."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import cast

from ostinato.journal import JSON, StopKind, Stopped
from ostinato.loop import Attempt, GoBack, LaneResult, StartOver, Verdict
from ostinato.output_files import write_whole
from ostinato.refine.routing.router import Route, RouteSource

READY = "ready"
"""The stop condition of an item with a ready answer: from a rule or a past case."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokens:
    """The cost of a reply, in tokens.

    `reply`: in the reply. `accepted`: the same if it was accepted, else 0. `computed`: run through
    the network after the prompt. `discarded`: computed, but not in the reply. `prompt`: computed
    for the prompt. `judged`: read and written by models that judge.
    """

    reply: int = 0
    accepted: int = 0
    computed: int = 0
    discarded: int = 0
    prompt: int = 0
    judged: int = 0

    def to_json(self) -> dict[str, JSON]:
        """Return the counts by name."""
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """A draft at one of its stops.

    `before` is the text that was kept, `taken_back` the text that was not. `position` is its length
    in tokens, `lost` the number of tokens taken back. `check` names the checks that stopped it,
    none if it was accepted; `message` is the reason, `answer` the strategy's answer.
    """

    round: int
    backtracks: int
    position: int
    lost: int
    before: str
    taken_back: str
    check: tuple[str, ...]
    message: str
    answer: str
    verdicts: tuple[Verdict, ...] = ()

    def to_json(self) -> dict[str, JSON]:
        """Return the draft as the output file holds it."""
        return {
            "round": self.round,
            # This key and `text_before` are older than the fields: existing output files have them.
            "try": self.backtracks,
            "position": self.position,
            "lost": self.lost,
            "text_before": self.before,
            "taken_back": self.taken_back,
            "checks": list(self.check),
            "message": self.message,
            "answer": self.answer,
            "verdicts": [verdict.to_json() for verdict in self.verdicts],
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """The result of one item: a line of the output.

    `refused_answer` is a ready answer that did not pass the checks; `columns` are the item's.
    """

    id: str
    reply: str
    accepted: bool
    stopped: Stopped
    verdicts: tuple[Verdict, ...] = ()
    rounds: int = 1
    backtracks: int = 0
    tokens: Tokens = Tokens()
    logprob: float = 0.0
    source: RouteSource = RouteSource.MODEL
    rule: str = ""
    refused_answer: str = ""
    drafts: tuple[Draft, ...] = ()
    columns: Mapping[str, object] = field(default_factory=dict)

    @property
    def outcome(self) -> str:
        """`accepted` (at once), `revised` (accepted, not at once), `given up` or `error`."""
        if self.stopped.kind is StopKind.ERROR:
            return "error"
        if not self.accepted:
            return "given up"
        return "revised" if self.rounds > 1 or self.backtracks else "accepted"

    def line(self, *, details: bool = False) -> dict[str, JSON]:
        """Return the line of the output file: `to_json`, or what most readers need of it.

        Without `details` it says which checks failed, not what all of them said, and has no drafts.
        """
        row = self.to_json()
        if details:
            return row
        stopped = self.stopped.to_json()
        failed = [each for each in self.verdicts if not each.passed]
        row["stopped"] = {name: stopped[name] for name in ("kind", "sentence")}
        row["failed"] = [
            {"check": each.check, "message": each.error or each.message} for each in failed
        ]
        del row["verdicts"], row["drafts"]
        return row

    def to_json(self) -> dict[str, JSON]:
        """Return all that is known of it."""
        return {
            "id": self.id,
            "reply": self.reply,
            "accepted": self.accepted,
            "outcome": self.outcome,
            "columns": cast("JSON", dict(self.columns)),
            "stopped": self.stopped.to_json(),
            "verdicts": [verdict.to_json() for verdict in self.verdicts],
            "rounds": self.rounds,
            "backtracks": self.backtracks,
            "tokens": self.tokens.to_json(),
            "logprob": round(self.logprob, 4),
            "source": self.source.value,
            "rule": self.rule,
            "refused_answer": self.refused_answer,
            "drafts": [draft.to_json() for draft in self.drafts],
        }


def from_lane(
    result: LaneResult,
    route: Route | None = None,
    columns: Mapping[str, object] | None = None,
) -> Result:
    """Return the result of an item from that of its lane.

    `route` is how the item was routed: the source of a ready answer. `columns` are the item's.
    """
    computed = int(result.spent.get("computed", 0))
    ready = result.stopped.condition == READY
    return Result(
        id=result.key,
        reply=result.output if isinstance(result.output, str) else "",
        accepted=result.accepted,
        stopped=result.stopped,
        verdicts=result.verdicts,
        rounds=result.rounds,
        backtracks=result.backtracks,
        tokens=Tokens(
            reply=result.length,
            accepted=result.length if result.accepted else 0,
            computed=computed,
            # The last token of a reply never runs through the network, so `computed` can be lower.
            discarded=max(0, computed - result.length),
            prompt=int(result.spent.get("prompt", 0)),
            judged=int(result.spent.get("judged", 0)),
        ),
        logprob=result.logprob,
        source=route.source if route is not None and ready else RouteSource.MODEL,
        rule=route.rule if route is not None else "",
        refused_answer=route.reply or "" if route is not None and not ready else "",
        drafts=tuple(_drafts(result.attempts)),
        columns=columns or {},
    )


def _drafts(attempts: Sequence[Attempt]) -> Iterable[Draft]:
    for attempt, following in zip_longest(attempts, attempts[1:]):
        kept, lost = _kept(attempt, following)
        stopped = attempt.stopped
        yield Draft(
            round=attempt.round,
            backtracks=attempt.backtracks,
            position=attempt.position,
            lost=lost,
            before=attempt.text[:kept],
            taken_back=attempt.text[kept:],
            check=blamed(stopped, attempt.verdicts) if stopped.kind is StopKind.FAILED else (),
            message=stopped.sentence,
            answer=attempt.action.name,
            verdicts=attempt.verdicts,
        )


def _kept(attempt: Attempt, following: Attempt | None) -> tuple[int, int]:
    """Return how many characters of a draft were kept, and how many tokens were taken back."""
    match attempt.action:
        case StartOver():
            return 0, attempt.position
        case GoBack(to=to):
            lost = 0 if to is None else attempt.position - to
            if attempt.kept is not None:
                return attempt.kept, lost
            # Rows of older versions do not record it: the next draft shows what was kept.
            return _common_prefix(attempt.text, following.text if following else ""), lost
    return len(attempt.text), 0


def _common_prefix(one: str, other: str) -> int:
    """Return the length of the common prefix of two texts."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((n for n, (a, b) in pairs if a != b), min(len(one), len(other)))


def blamed(stopped: Stopped, verdicts: Sequence[Verdict]) -> tuple[str, ...]:
    """Return the checks that stopped a draft: those that failed, else the one of the prefix
    verdict.
    """
    # A whole draft has verdicts, one that was ended early only the condition that fired.
    failed = tuple(verdict.check for verdict in verdicts if not verdict.passed)
    return failed or ((stopped.condition,) if stopped.condition else ())


# The output file --------------------------------------------------------------------------------


_encode = json.JSONEncoder(ensure_ascii=False, default=str).encode


def write_results(path: Path, results: Iterable[Result], *, details: bool = False) -> None:
    """Write the output in the order of `results`; a crash leaves the old file or the new one."""
    write_whole(path, (f"{_encode(result.line(details=details))}\n" for result in results))
