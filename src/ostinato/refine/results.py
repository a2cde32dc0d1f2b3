"""Results: one row for each finished item, and the output file with the rows in input order."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import cast

from ostinato.journal import JSON, StopKind, Stopped
from ostinato.loop import Verdict
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

    def to_json(self) -> dict[str, JSON]:
        """Return the line of the output file."""
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
    key: str,
    row: Mapping[str, object],
    route: Route | None = None,
    columns: Mapping[str, object] | None = None,
) -> Result:
    """Return the result of an item from the row of `ostinato.loop.Lanes` for its key.

    `route` is how the item was routed: the source of a ready answer. `columns` are the item's.
    """
    stopped = Stopped.from_json(_mapping(row, "stopped"))
    accepted, length = bool(row["accepted"]), _int(row.get("length"))
    spent = _mapping(row, "spent")
    computed = _int(spent.get("computed"))
    ready = stopped.condition == READY
    output = row.get("output")
    return Result(
        id=key,
        reply=output if isinstance(output, str) else "",
        accepted=accepted,
        stopped=stopped,
        verdicts=_verdicts(row),
        rounds=_int(row.get("rounds"), 1),
        backtracks=_int(row.get("backtracks")),
        tokens=Tokens(
            reply=length,
            accepted=length if accepted else 0,
            computed=computed,
            # The last token of a reply never runs through the network, so `computed` can be lower.
            discarded=max(0, computed - length),
            prompt=_int(spent.get("prompt")),
            judged=_int(spent.get("judged")),
        ),
        logprob=_float(row.get("logprob")),
        source=route.source if route is not None and ready else RouteSource.MODEL,
        rule=route.rule if route is not None else "",
        refused_answer=route.reply or "" if route is not None and not ready else "",
        drafts=tuple(_drafts(row)),
        columns=columns or {},
    )


def _drafts(row: Mapping[str, object]) -> Iterable[Draft]:
    attempts = row.get("attempts")
    attempts = attempts if isinstance(attempts, list) else []
    for attempt, following in zip_longest(attempts, attempts[1:]):
        text = str(attempt["text"])
        kept, lost = _kept(attempt, following, text)
        stopped = Stopped.from_json(attempt["stopped"])
        verdicts = _verdicts(attempt)
        yield Draft(
            round=_int(attempt["round"]),
            backtracks=_int(attempt["try"]),
            position=_int(attempt["position"]),
            lost=lost,
            before=text[:kept],
            taken_back=text[kept:],
            check=_blamed(stopped, verdicts) if stopped.kind is StopKind.FAILED else (),
            message=stopped.sentence,
            answer=str(_mapping(attempt, "answer")["answer"]),
            verdicts=verdicts,
        )


def _kept(
    attempt: Mapping[str, object], following: Mapping[str, object] | None, text: str
) -> tuple[int, int]:
    """Return how many characters of a draft were kept, and how many tokens were taken back."""
    answer, position = _mapping(attempt, "answer"), _int(attempt["position"])
    match answer["answer"]:
        case "start over":
            return 0, position
        case "go back":
            lost = position - _int(answer.get("to"), position)
            kept = attempt.get("kept")
            if isinstance(kept, int):
                return kept, lost
            # Rows of older versions do not record it: the next draft shows what was kept.
            other = str(following["text"]) if following is not None else ""
            return _common_prefix(text, other), lost
    return len(text), 0


def _common_prefix(one: str, other: str) -> int:
    """Return the length of the common prefix of two texts."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((n for n, (a, b) in pairs if a != b), min(len(one), len(other)))


def _blamed(stopped: Stopped, verdicts: Sequence[Verdict]) -> tuple[str, ...]:
    """Return the checks that stopped a draft: those that failed, else the one of the prefix
    verdict.
    """
    # A whole draft has verdicts, one that was ended early only the condition that fired.
    failed = tuple(verdict.check for verdict in verdicts if not verdict.passed)
    return failed or ((stopped.condition,) if stopped.condition else ())


def _mapping(row: Mapping[str, object], name: str) -> Mapping[str, JSON]:
    value = row.get(name)
    return value if isinstance(value, dict | Mapping) else {}


def _verdicts(row: Mapping[str, object]) -> tuple[Verdict, ...]:
    values = row.get("verdicts")
    return tuple(map(Verdict.from_json, values)) if isinstance(values, list) else ()


def _int(value: object, default: int = 0) -> int:
    return int(value) if isinstance(value, int | float) else default


def _float(value: object) -> float:
    return float(value) if isinstance(value, int | float) else 0.0


# The output file --------------------------------------------------------------------------------


_encode = json.JSONEncoder(ensure_ascii=False, default=str).encode


def write_results(path: Path, results: Iterable[Result]) -> None:
    """Write the output in the order of `results`; a crash leaves the old file or the new one."""
    write_whole(path, (f"{_encode(result.to_json())}\n" for result in results))
