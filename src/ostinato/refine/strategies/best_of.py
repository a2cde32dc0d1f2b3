"""Best of n: several drafts of an item, the hopeless ones left early, and the best one kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, cast

from ostinato.checks import TIME_LIMIT
from ostinato.decode import Decode
from ostinato.loop import Check, Lane, Report, Text
from ostinato.refine.strategies.grouped_lanes import GroupedLanes, LaneGroup

By = Literal["logprob", "score"]


@dataclass(slots=True)
class WholeDraft:
    """A draft that is done: its text, and what it is worth.

    `unjudged` is the sentence of a check that could not judge it, empty where all could.
    """

    number: int
    text: Text
    passed: int
    score: float
    logprob: float
    unjudged: str = ""

    def worth(self, by: By, checks: int) -> tuple[float, ...]:
        """Order drafts: by the checks passed, then as asked; the earlier one of equal ones.

        Where none passes all of them, one that could not be judged goes before the others: no
        other draft mends a check, so it is what must be told.
        """
        mean = self.logprob / max(1, len(self.text.tokens))
        rest = (mean, self.score) if by == "logprob" else (self.score, mean)
        first = self.passed == checks, bool(self.unjudged)
        return (*first, self.passed, *rest, -self.number)


@dataclass(slots=True)
class DraftGroup(LaneGroup):
    """The drafts of an item: those being written, by number, and those that are done."""

    begun: int = 0
    writing: dict[int, list[Report]] = field(default_factory=dict)
    lanes: dict[int, str] = field(default_factory=dict)
    done: list[WholeDraft] = field(default_factory=list)
    rejected: Text = field(default_factory=lambda: Text(""))


class BestOfSampler(GroupedLanes[DraftGroup]):
    """A lane process that writes `n` drafts of each item, `side` at once, and keeps the best.

    A draft that no continuation can mend is left at once, and the next takes its lane. A draft ends
    by itself or after `limit` tokens. The best one passes the most checks; of those, by the mean
    log-probability of its tokens or by the mean score of the checks. Where none passes them all,
    one that a check could not judge is the one that is kept.

    Reports: `drawn` (draft to token and log-probability), `rejected` (draft to the reason),
    `finished` (draft to checks passed and mean score), `unjudged` where there are any (draft to
    the error of a check), and at the end `chosen`, `logprob` of the chosen text, and `ended`.
    """

    def __init__(
        self,
        decode: Decode,
        checks: Sequence[Check],
        *,
        n: int,
        side: int,
        limit: int,
        by: By = "logprob",
        time_limit: float = TIME_LIMIT,
        late: set[str] | None = None,
    ) -> None:
        super().__init__(decode, min(n, side), checks, time_limit=time_limit, late=late)
        self.n, self.limit, self.by = n, limit, by

    def _begin(self, lane: Lane, item: object) -> DraftGroup:
        return DraftGroup(lane, item)

    def _replay(self, member: DraftGroup, report: Report) -> None:
        self._count(member)
        drawn = cast("Mapping[str, list[float]]", report["drawn"])
        for name, (token, logprob) in drawn.items():
            member.writing[int(name)].append({"token": int(token), "logprob": logprob})
        finished = cast("Mapping[str, list[float]]", report["finished"])
        unjudged = cast("Mapping[str, str]", report.get("unjudged", {}))
        for name, (passed, score) in finished.items():
            text, logprob = self._read(member, int(name))
            error = unjudged.get(name, "")
            member.done.append(WholeDraft(int(name), text, int(passed), score, logprob, error))
        for name in cast("Mapping[str, str]", report["rejected"]):
            self._reject(member, self._read(member, int(name))[0])

    def _read(self, member: DraftGroup, number: int) -> tuple[Text, float]:
        """Return the text of a draft that is done, and the sum of its log-probabilities."""
        reports = member.writing.pop(number)
        lane = member.inner(number, reports)
        self.decode.start(lane, member.item)
        text = self.decode.output(lane.key)
        self.decode.drop(lane.key)
        return text, sum(cast(float, report["logprob"]) for report in reports)

    def _count(self, member: DraftGroup) -> None:
        """Begin drafts while there are some, and lanes for them."""
        while member.begun < self.n and len(member.writing) < self.size:
            member.writing[member.begun] = []
            member.begun += 1

    def _enter(self, member: DraftGroup) -> None:
        self._count(member)
        for number, reports in member.writing.items():
            if number not in member.lanes:
                lane = member.inner(number, reports)
                self.decode.start(lane, member.item)
                member.lanes[number] = lane.key

    def _prepare(self, member: DraftGroup) -> None:
        self._enter(member)

    def _lanes(self, member: DraftGroup) -> Mapping[int, str]:
        return dict(member.lanes)

    def _advance(self, member: DraftGroup, moved: Mapping[int, Report]) -> dict[str, object]:
        drawn: dict[str, object] = {}
        rejected: dict[str, object] = {}
        finished: dict[str, object] = {}
        unjudged: dict[str, object] = {}
        for number, told in moved.items():
            name, reports = str(number), member.writing[number]
            reports.append(told)
            drawn[name] = [told["token"], told["logprob"]]
            output = self.decode.output(member.lanes[number])
            if "ended" in told or len(reports) >= self.limit:
                whole = self._judge(member, number, output)
                finished[name] = [whole.passed, whole.score]
                if whole.unjudged:
                    unjudged[name] = whole.unjudged
                member.done.append(whole)
            elif (reason := self._impossible(member, output)) is not None:
                rejected[name] = reason
                self._reject(member, output)
            else:
                continue
            self.decode.drop(member.lanes.pop(number))
            del member.writing[number]
        report: dict[str, object] = {"drawn": drawn, "rejected": rejected, "finished": finished}
        return report | ({"unjudged": unjudged} if unjudged else {}) | self._end(member)

    def _judge(self, member: DraftGroup, number: int, output: Text) -> WholeDraft:
        verdicts = self._verdicts(member, output)
        passed = sum(verdict.passed for verdict in verdicts)
        score = sum(verdict.score for verdict in verdicts) / max(1, len(verdicts))
        unjudged = next((verdict.error for verdict in verdicts if verdict.error), "")
        return WholeDraft(number, output, passed, score, sum(output.logprobs), unjudged)

    def _reject(self, member: DraftGroup, output: Text) -> None:
        if len(output) > len(member.rejected):
            member.rejected = output  # the longest, to be shown where none was whole

    def _end(self, member: DraftGroup) -> dict[str, object]:
        if member.writing or member.begun < self.n:
            return {}
        if not member.done:
            return {"ended": f"None of {self.n} drafts can pass."}
        best = self._best(member)
        return {
            "chosen": best.number,
            "logprob": best.logprob,
            "length": len(best.text.tokens),
            "ended": f"The best of {self.n} drafts was kept ({len(member.done)} were whole).",
        }

    def _best(self, member: DraftGroup) -> WholeDraft:
        return max(member.done, key=lambda whole: whole.worth(self.by, len(self._checks)))

    def _output(self, member: DraftGroup) -> Text:
        if member.done:
            return self._best(member).text
        first = next(iter(member.lanes.values()), None)
        return member.rejected if first is None else self.decode.output(first)
