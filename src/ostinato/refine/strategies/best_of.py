"""Best of n with early rejection, after speculative rejection (Sun et al. 2024, arXiv 2410.20290).

Several drafts of an item are written; one that can no longer pass is dropped, and the best is kept.
Here prefix verdicts reject a draft, where the paper uses the partial scores of a reward model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from ostinato.checks import TIME_LIMIT
from ostinato.decode import Decode
from ostinato.journal import Fields
from ostinato.loop import Check, Lane, Report, Text
from ostinato.refine.strategies.grouped_lanes import GroupedLanes, LaneGroup, sum_logprobs

RankBy = Literal["logprob", "score"]


@dataclass(slots=True)
class WholeDraft:
    """A complete draft: its text, the number of checks it passed, and its scores.

    `unjudged` is the error of a check that could not judge it, empty if all could.
    """

    number: int
    text: Text
    passed: int
    score: float
    logprob: float
    unjudged: str = ""

    def rank(self, by: RankBy, checks: int) -> tuple[float, ...]:
        """Return the sort key: checks passed, then `by`, then the lower number.

        If no draft passes all `checks`, one that could not be judged ranks first. Another draft
        does not repair a check, so its error is what the user must see.
        """
        # The mean: a sum would favor short drafts.
        mean = self.logprob / max(1, len(self.text.tokens))
        scores = (mean, self.score) if by == "logprob" else (self.score, mean)
        return (self.passed == checks, bool(self.unjudged), self.passed, *scores, -self.number)


@dataclass(slots=True)
class DraftGroup(LaneGroup):
    """The drafts of an item: those in progress, by number, and those that are complete."""

    started: int = 0
    writing: dict[int, list[Report]] = field(default_factory=dict)
    lanes: dict[int, str] = field(default_factory=dict)
    done: list[WholeDraft] = field(default_factory=list)
    rejected: Text = field(default_factory=lambda: Text(""))


class BestOfSampler(GroupedLanes[DraftGroup]):
    """A lane process that writes `n` drafts of each item, `parallel` at a time, and keeps the best.

    A draft that no continuation can repair is dropped at once, and the next one takes its lane. A
    draft is complete at the end of text or after `limit` tokens. `WholeDraft.rank` orders them.

    Reports, by draft number: `drawn` (token and log-probability), `rejected` (the reason),
    `finished` (checks passed and mean score), and `unjudged` (the error of a check, if any). The
    last report adds `chosen`, `logprob` of the chosen text, `length` and `ended`.
    """

    def __init__(
        self,
        decode: Decode,
        checks: Sequence[Check],
        *,
        n: int,
        parallel: int,
        limit: int,
        by: RankBy = "logprob",
        time_limit: float = TIME_LIMIT,
        late: set[str] | None = None,
    ) -> None:
        # More slots than drafts would stay empty.
        super().__init__(decode, min(n, parallel), checks, time_limit=time_limit, late=late)
        self.n, self.limit, self.by = n, limit, by

    def _new_group(self, lane: Lane, item: object) -> DraftGroup:
        return DraftGroup(lane, item)

    def _replay(self, group: DraftGroup, report: Report) -> None:
        self._start_drafts(group)
        saved = Fields(report)  # its keys are texts: JSON objects have no others
        for name, (token, logprob) in saved.mapping("drawn").items():
            group.writing[int(name)].append({"token": int(token), "logprob": logprob})
        unjudged = saved.mapping("unjudged", {})
        for name, (passed, score) in saved.mapping("finished").items():
            text, logprob = self._restored(group, int(name))
            error = unjudged.get(name, "")
            group.done.append(WholeDraft(int(name), text, int(passed), score, logprob, error))
        for name in saved.mapping("rejected"):
            self._keep_rejected(group, self._restored(group, int(name))[0])

    def _restored(self, group: DraftGroup, number: int) -> tuple[Text, float]:
        """Return the text of a recorded draft and its log-probability.

        The report has its tokens only; a lane that is started for a moment decodes them.
        """
        reports = group.writing.pop(number)
        lane = group.child(number, reports)
        self.decode.start(lane, group.item)
        text = self.decode.output(lane.key)
        self.decode.drop(lane.key)
        return text, sum_logprobs(reports)

    def _start_drafts(self, group: DraftGroup) -> None:
        """Start drafts until `size` are in progress or all `n` have started."""
        while group.started < self.n and len(group.writing) < self.size:
            group.writing[group.started] = []
            group.started += 1

    def _start_lanes(self, group: DraftGroup) -> None:
        self._start_drafts(group)
        for number, reports in group.writing.items():
            if number not in group.lanes:
                lane = group.child(number, reports)
                self.decode.start(lane, group.item)
                group.lanes[number] = lane.key

    def _prepare(self, group: DraftGroup) -> None:
        self._start_lanes(group)

    def _active_lanes(self, group: DraftGroup) -> Mapping[int, str]:
        return group.lanes

    def _advance(self, group: DraftGroup, moved: Mapping[int, Report]) -> dict[str, object]:
        drawn: dict[str, object] = {}
        rejected: dict[str, object] = {}
        finished: dict[str, object] = {}
        unjudged: dict[str, object] = {}
        for number, token in moved.items():
            name, reports = str(number), group.writing[number]
            reports.append(token)
            drawn[name] = [token["token"], token["logprob"]]
            output = self.decode.output(group.lanes[number])
            if "ended" in token or len(reports) >= self.limit:
                whole = self._judge(group, number, output)
                finished[name] = [whole.passed, whole.score]
                if whole.unjudged:
                    unjudged[name] = whole.unjudged
                group.done.append(whole)
            # Only an unfinished draft: a whole one has just been judged.
            elif (reason := self._why_hopeless(group, output)) is not None:
                rejected[name] = reason
                self._keep_rejected(group, output)
            else:
                continue
            # Its slot is free for the next draft, which `_prepare` starts.
            self.decode.drop(group.lanes.pop(number))
            del group.writing[number]
        report: dict[str, object] = {"drawn": drawn, "rejected": rejected, "finished": finished}
        return report | ({"unjudged": unjudged} if unjudged else {}) | self._end(group)

    def _judge(self, group: DraftGroup, number: int, output: Text) -> WholeDraft:
        verdicts = self._verdicts(group, output)
        passed = sum(verdict.passed for verdict in verdicts)
        score = sum(verdict.score for verdict in verdicts) / max(1, len(verdicts))
        unjudged = next((verdict.error for verdict in verdicts if verdict.error), "")
        return WholeDraft(number, output, passed, score, sum(output.logprobs), unjudged)

    def _keep_rejected(self, group: DraftGroup, output: Text) -> None:
        """Keep the longest rejected draft: it is the output if no draft becomes complete."""
        if len(output) > len(group.rejected):
            group.rejected = output

    def _end(self, group: DraftGroup) -> dict[str, object]:
        if group.writing or group.started < self.n:
            return {}
        if not group.done:
            return {"ended": f"None of {self.n} drafts can pass."}
        best = self._best(group)
        return {
            "chosen": best.number,
            "logprob": best.logprob,
            "length": len(best.text.tokens),
            "ended": f"The best of {self.n} drafts was kept ({len(group.done)} were whole).",
        }

    def _best(self, group: DraftGroup) -> WholeDraft:
        return max(group.done, key=lambda whole: whole.rank(self.by, len(self._checks)))

    def _output(self, group: DraftGroup) -> Text:
        if group.done:
            return self._best(group).text
        first = next(iter(group.lanes.values()), None)
        return group.rejected if first is None else self.decode.output(first)
