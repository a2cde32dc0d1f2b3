"""What to change in a job so that it spends less: plain rules with numbers. Knows no model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

from ostinato.arguments import counted, were
from ostinato.refine.job.config import Job
from ostinato.refine.report.summary import Summary
from ostinato.refine.report.why import CheckRecord, CheckTally, lost_by
from ostinato.refine.results import Draft, Result

WORTH = 0.03
"""The smallest share of the computed tokens that is worth an advice."""

SHOWN = 3
"""How many of the given-up items are named."""


@dataclass(frozen=True, slots=True)
class Advice:
    """An observation with its numbers, and what to do about it."""

    observation: str
    action: str


Found = Iterator[tuple[float, Advice]]
"""Advice with the tokens that it would save."""


class AdviceTally:
    """Collects what advice needs of a job's results, result by result."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._checks = CheckTally(check.name for check in job.checks)
        self._computed = 0
        self._good_part = 0  # of discarded drafts, before their first failure
        self._repeated = 0  # in rounds after the first
        self._given_up = 0
        self._given_up_ids: list[str] = []
        self._hopeless = 0  # tokens of items that were given up
        self._cut, self._cut_tokens = 0, 0  # drafts that ended at the maximum length
        self._accepted_in = Counter[int]()  # accepted items, by rounds
        self._lost_in = Counter[int]()  # tokens lost by items that were not accepted, by round
        self._refused: dict[str, int] = {}  # tokens by the rule whose answer did not pass

    def add(self, result: Result) -> None:
        """Count a result; ready answers cost no tokens."""
        if result.source != "model":
            return
        self._checks.add(result)
        self._computed += result.tokens.computed
        if result.outcome == "given up":
            self._given_up += 1
            self._hopeless += result.tokens.computed
            if self._given_up <= SHOWN:
                self._given_up_ids.append(result.id)
        if result.accepted:
            self._accepted_in[result.rounds] += 1
        if result.refused_answer:
            name = result.rule or "a past case"
            self._refused[name] = self._refused.get(name, 0) + result.tokens.computed
        for draft in result.drafts:
            self._add_draft(draft, accepted=result.accepted)

    def _add_draft(self, draft: Draft, *, accepted: bool) -> None:
        lost = lost_by(draft)
        self._good_part += _good_part(draft)
        self._repeated += lost if draft.round > 0 else 0
        if not accepted:
            self._lost_in[draft.round] += lost
        if draft.position >= self._job.max_new_tokens and draft.check:
            self._cut += 1
            self._cut_tokens += lost

    def advice(self) -> list[Advice]:
        """Return what would make the job cheaper, the largest saving first."""
        records = self._checks.records
        found = [
            *self._strategy(),
            *self._temperature(),
            *self._hopeless_items(records),
            *_costly(records, max(1, self._computed)),
            *self._cut_drafts(),
            *self._rounds(),
            *self._refused_answers(),
            *_errors(records),
        ]
        return [advice for _, advice in sorted(found, key=lambda one: -one[0])]

    @property
    def _worth(self) -> float:
        return WORTH * max(1, self._computed)

    def _strategy(self) -> Found:
        """Count the tokens before the first failure in drafts that were discarded whole."""
        kind, saved = self._job.strategy.kind, self._good_part
        if kind != "backtrack" and saved > self._worth:
            share = _percent(saved, self._computed)
            yield (
                saved,
                Advice(
                    f"{counted(saved, 'tokens', ',')} ({share} of all) {were(saved)} discarded "
                    "although they came before "
                    "the first failure.",
                    f'Keep them: kind = "backtrack" in [strategy], instead of "{kind}".',
                ),
            )

    def _temperature(self) -> Found:
        job, again = self._job, self._repeated
        # The other strategies change the prompt or forbid a token, so their drafts differ.
        if job.sampling.temperature > 0 or job.strategy.kind not in ("resample", "abort"):
            return
        if again:
            yield (
                again,
                Advice(
                    "At temperature 0 all rounds write the same draft: "
                    f"{counted(again, 'tokens', ',')} {were(again)} "
                    "wasted.",
                    "Set temperature = 0.7 in [sampling], or choose a strategy that changes "
                    "something.",
                ),
            )

    def _hopeless_items(self, records: Sequence[CheckRecord]) -> Found:
        spent = self._hopeless
        if not self._given_up or spent <= self._worth:
            return
        # The check that the most given-up items fail.
        worst = max(records, key=lambda record: record.hopeless, default=None)
        often = (
            f", most often because of '{worst.name}' ({worst.hopeless})"
            if worst is not None and worst.hopeless
            else ""
        )
        yield (
            spent,
            Advice(
                f"{counted(self._given_up, 'items')} {were(self._given_up)} given up after "
                f"{counted(spent, 'tokens', ',')} "
                f"({_percent(spent, self._computed)} of all){often}.",
                f"Read the given-up items first ({', '.join(self._given_up_ids)}). A check may be "
                "impossible to pass there, or the prompt may lack a fact. A lower item_tokens in "
                "[budget] ends such items sooner.",
            ),
        )

    def _cut_drafts(self) -> Found:
        spent = self._cut_tokens
        if spent > self._worth:
            yield (
                spent,
                Advice(
                    f"{counted(self._cut, 'drafts')} {were(self._cut)} cut at max_new_tokens = "
                    f"{self._job.max_new_tokens}, "
                    f"and {spent:,} of their tokens were taken back.",
                    "Ask for a shorter reply in the prompt, or raise max_new_tokens in [sampling].",
                ),
            )

    def _rounds(self) -> Found:
        """Find the number of rounds after which almost no item was accepted."""
        accepted, rounds = self._accepted_in.total(), self._job.strategy.rounds
        if not accepted or rounds < 3:
            return
        # The 99th percentile: one late success does not justify rounds for all hopeless items.
        place = min(accepted - 1, int(0.99 * accepted))
        sums = zip(sorted(self._accepted_in), _running(self._accepted_in), strict=True)
        enough = next(number for number, upto in sums if upto > place)
        late = sum(count for number, count in self._accepted_in.items() if number > enough)
        spent = sum(lost for number, lost in self._lost_in.items() if number >= enough)
        if spent > self._worth and enough < rounds:
            told = f"{late} accepted replies needed more." if late else ""
            yield (
                spent,
                Advice(
                    f"Rounds after round {enough} of items that were given up took {spent:,} "
                    f"tokens. {told or 'No accepted reply needed more.'}",
                    f"Set rounds = {enough} in [strategy] (now {rounds}).",
                ),
            )

    def _refused_answers(self) -> Found:
        for name, spent in self._refused.items():
            if spent:
                yield (
                    spent,
                    Advice(
                        f"Answers of {name} did not pass the checks, so the model wrote after all: "
                        f"{counted(spent, 'tokens', ',')}.",
                        "Fix that answer, or relax the check that refuses it.",
                    ),
                )


def advise(job: Job, results: Iterable[Result]) -> list[Advice]:
    """Return what would make the job cheaper, the largest saving first; empty if little would."""
    tally = AdviceTally(job)
    for result in results:
        tally.add(result)
    return tally.advice()


def _running(counts: Counter[int]) -> Iterator[int]:
    """Yield how many there are of each number and those below it."""
    return accumulate(counts[number] for number in sorted(counts))


def _percent(part: float, total: float) -> str:
    return f"{100 * part / total:.0f}%" if total else "0%"


def _good_part(draft: Draft) -> int:
    """Return how many tokens of a discarded draft come before its first failure."""
    if draft.answer != "start over":
        return 0
    starts = [v.span.start for v in draft.verdicts if not v.passed and v.span is not None]
    length = len(draft.before + draft.taken_back)
    # In proportion to the characters: results do not record where each token starts.
    return int(lost_by(draft) * min(starts) / length) if starts and length else 0


def _costly(records: Sequence[CheckRecord], computed: int) -> Found:
    total = sum(record.tokens for record in records)
    for record in records:
        # Advice about a check that costs little beside the others would distract.
        if record.tokens <= WORTH * computed or record.tokens < 0.25 * total:
            continue
        yield (
            record.tokens,
            Advice(
                f"'{record.name}' took back {record.tokens:,.0f} tokens "
                f"({_percent(record.tokens, total)} of all that was taken back), "
                f"{counted(record.stops, 'times')}.",
                f"State in the prompt what this check requires, for example: “{record.often}”"
                if record.often
                else "State in the prompt what this check requires.",
            ),
        )


def _errors(records: Sequence[CheckRecord]) -> Found:
    for record in records:
        if record.errors:
            yield (
                record.tokens,
                Advice(
                    f"'{record.name}' could not judge {counted(record.errors, 'times')}.",
                    "Fix the check: an error counts as not passed.",
                ),
            )


def nothing_to_do(summary: Summary) -> Advice:
    """Return the advice for a job in which no rule found anything."""
    kept = _percent(summary.tokens_computed - summary.tokens_discarded, summary.tokens_computed)
    return Advice(f"{kept} of the computed tokens are in the replies.", "Nothing stands out.")
