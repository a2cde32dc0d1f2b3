"""Results: one row for each finished item, and the output file that holds them in input order."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ostinato.journal import JSON, StopKind, Stopped
from ostinato.loop import Verdict
from ostinato.refine.routing.router import Route, RouteSource

READY = "ready"
"""The condition of a stop whose answer was ready: from a rule or a past case."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokens:
    """What a reply cost, in tokens.

    `reply` are those of the reply as it is given, `accepted` the same where it was accepted (else
    0), `computed` those run through the network after the prompt, `discarded` the computed ones
    that the reply does not hold, `prompt` those of the prompt that were computed, `judged` those
    that models read and wrote to judge.
    """

    reply: int = 0
    accepted: int = 0
    computed: int = 0
    discarded: int = 0
    prompt: int = 0
    judged: int = 0

    def to_json(self) -> dict[str, JSON]:
        """Return the counts as a JSON object."""
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """A draft at one of its stops.

    `before` is the part that was kept, `taken_back` the part that was not; `position` counts its
    tokens, `lost` those taken back. `check` names the checks that stopped it (none for the last
    draft where it was accepted), `message` says why, `answer` what was done about it.
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
        """Return the draft as a JSON object."""
        return {
            "round": self.round,
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
    """What became of one item: a line of the output.

    `refused_answer` is an answer that was ready but did not pass the checks.
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

    @property
    def outcome(self) -> str:
        """How it came out: `accepted`, `mended` (accepted, not at once), `given up` or `error`."""
        if self.stopped.kind is StopKind.ERROR:
            return "error"
        if not self.accepted:
            return "given up"
        return "mended" if self.rounds > 1 or self.backtracks else "accepted"

    def to_json(self) -> dict[str, JSON]:
        """Return the line of the output."""
        return {
            "id": self.id,
            "reply": self.reply,
            "accepted": self.accepted,
            "outcome": self.outcome,
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


def from_lane(key: str, row: Mapping[str, object], plan: Route | None = None) -> Result:
    """Return the result of an item from the row that `ostinato.loop.Lanes` gave for its key.

    `plan` tells where an answer came from that was ready.
    """
    stopped = Stopped.from_json(_mapping(row, "stopped"))
    accepted, length = bool(row["accepted"]), _whole(row.get("length"))
    spent = _mapping(row, "spent")
    computed = _whole(spent.get("computed"))
    ready = stopped.condition == READY
    output = row.get("output")
    return Result(
        id=key,
        reply=output if isinstance(output, str) else "",
        accepted=accepted,
        stopped=stopped,
        verdicts=_verdicts(row),
        rounds=_whole(row.get("rounds"), 1),
        backtracks=_whole(row.get("backtracks")),
        tokens=Tokens(
            reply=length,
            accepted=length if accepted else 0,
            computed=computed,
            discarded=max(0, computed - length),
            prompt=_whole(spent.get("prompt")),
            judged=_whole(spent.get("judged")),
        ),
        logprob=_number(row.get("logprob")),
        source=plan.source if plan is not None and ready else RouteSource.MODEL,
        rule=plan.rule if plan is not None else "",
        refused_answer=plan.reply or "" if plan is not None and not ready else "",
        drafts=tuple(_drafts(row)),
    )


def _drafts(row: Mapping[str, object]) -> Iterable[Draft]:
    attempts = row.get("attempts")
    attempts = attempts if isinstance(attempts, list) else []
    texts = [str(attempt["text"]) for attempt in attempts]
    for number, attempt in enumerate(attempts):
        following = attempts[number + 1] if number + 1 < len(attempts) else None
        text = texts[number]
        kept, lost = _kept(attempt, following, text)
        stopped = Stopped.from_json(attempt["stopped"])
        verdicts = _verdicts(attempt)
        answer = str(_mapping(attempt, "answer")["answer"])
        failed = stopped.kind is StopKind.FAILED
        yield Draft(
            round=_whole(attempt["round"]),
            backtracks=_whole(attempt["try"]),
            position=_whole(attempt["position"]),
            lost=lost,
            before=text[:kept],
            taken_back=text[kept:],
            check=_blamed(stopped, verdicts) if failed else (),
            message=stopped.sentence,
            answer=answer,
            verdicts=verdicts,
        )


def _kept(
    attempt: Mapping[str, object], following: Mapping[str, object] | None, text: str
) -> tuple[int, int]:
    """Return how many characters of a draft were kept, and how many tokens taken back."""
    answer, position = _mapping(attempt, "answer"), _whole(attempt["position"])
    match answer["answer"]:
        case "start over":
            return 0, position
        case "go back":
            lost = position - _whole(answer.get("to"), position)
            kept = attempt.get("kept")
            if isinstance(kept, int):
                return kept, lost
            other = str(following["text"]) if following is not None else ""
            return _shared(text, other), lost
    return len(text), 0


def _shared(one: str, other: str) -> int:
    """Return how many characters two texts share at their beginning."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((n for n, (a, b) in pairs if a != b), min(len(one), len(other)))


def _blamed(stopped: Stopped, verdicts: Sequence[Verdict]) -> tuple[str, ...]:
    """Return the checks that stopped a draft: those not passed, else the one that looked ahead."""
    failed = tuple(verdict.check for verdict in verdicts if not verdict.passed)
    return failed or ((stopped.condition,) if stopped.condition else ())


def _mapping(row: Mapping[str, object], name: str) -> Mapping[str, JSON]:
    value = row.get(name)
    return value if isinstance(value, Mapping) else {}


def _verdicts(row: Mapping[str, object]) -> tuple[Verdict, ...]:
    values = row.get("verdicts")
    return tuple(map(Verdict.from_json, values)) if isinstance(values, list) else ()


def _whole(value: object, default: int = 0) -> int:
    return int(value) if isinstance(value, int | float) else default


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) else 0.0


# The output file --------------------------------------------------------------------------------


def write_results(path: Path, results: Iterable[Result]) -> None:
    """Write the output in the order of the results: a crash leaves the old file or the new one."""
    lines = (json.dumps(r.to_json(), ensure_ascii=False) + "\n" for r in results)
    write_whole(path, "".join(lines))


def write_whole(path: Path, text: str) -> None:
    """Write a file by way of a temporary one beside it, synced and renamed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o666 & ~_umask())
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
