"""What to change in a job so that it spends less: plain rules with numbers. Knows no model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ostinato.refine.job.config import Job
from ostinato.refine.report.summary import Summary, summarize
from ostinato.refine.report.why import CheckRecord, Course, lost_by, tally
from ostinato.refine.results import Draft, Result

WORTH = 0.03
"""The smallest share of the computed tokens that is worth an advice."""


@dataclass(frozen=True, slots=True)
class Advice:
    """An observation with its numbers, and what to do about it."""

    observation: str
    action: str


def advise(job: Job, results: Sequence[Result]) -> list[Advice]:
    """Return what would make the job cheaper, the largest saving first; empty if little would."""
    # Ready answers cost no tokens.
    written = [result for result in results if result.source == "model"]
    records = tally([check.name for check in job.checks], written)
    found = [
        *_strategy(job, written),
        *_temperature(job, written),
        *_hopeless(records, written),
        *_costly(records, written),
        *_cut(job, written),
        *_rounds(job, written),
        *_refused_answers(results),
        *_errors(records),
    ]
    return [advice for _, advice in sorted(found, key=lambda one: -one[0])]


Found = Iterator[tuple[float, Advice]]
"""Advice with the tokens that it would save."""


def _percent(part: float, total: float) -> str:
    return f"{100 * part / total:.0f}%" if total else "0%"


def _computed(results: Sequence[Result]) -> int:
    return max(1, summarize(results).tokens_computed)


def _strategy(job: Job, results: Sequence[Result]) -> Found:
    """Count the tokens before the first failure in drafts that were discarded whole."""
    if job.strategy.kind == "backtrack":
        return
    saved = sum(_good_part(draft) for result in results for draft in result.drafts)
    computed = _computed(results)
    if saved > WORTH * computed:
        yield (
            saved,
            Advice(
                f"{saved:,} tokens ({_percent(saved, computed)} of all) were discarded although "
                "they came before the first failure.",
                f'Keep them: kind = "backtrack" in [strategy], instead of "{job.strategy.kind}".',
            ),
        )


def _good_part(draft: Draft) -> int:
    """Return how many tokens of a discarded draft come before its first failure."""
    if draft.answer != "start over":
        return 0
    starts = [v.span.start for v in draft.verdicts if not v.passed and v.span is not None]
    length = len(draft.before + draft.taken_back)
    # In proportion to the characters: results do not record where each token starts.
    return int(lost_by(draft) * min(starts) / length) if starts and length else 0


def _temperature(job: Job, results: Sequence[Result]) -> Found:
    # The other strategies change the prompt or forbid a token, so their drafts differ.
    if job.sampling.temperature > 0 or job.strategy.kind not in ("resample", "abort"):
        return
    again = sum(lost_by(draft) for result in results for draft in result.drafts if draft.round > 0)
    if again:
        yield (
            again,
            Advice(
                f"At temperature 0 all rounds write the same draft: {again:,} tokens were wasted.",
                "Set temperature = 0.7 in [sampling], or choose a strategy that changes something.",
            ),
        )


def _hopeless(records: Sequence[CheckRecord], results: Sequence[Result]) -> Found:
    given_up = [result for result in results if result.outcome == "given up"]
    spent = sum(result.tokens.computed for result in given_up)
    computed = _computed(results)
    if not given_up or spent <= WORTH * computed:
        return
    failed = {
        record.name: len(
            {*record.items(Course.NEVER), *record.items(Course.FLAKY)}
            & {result.id for result in given_up}
        )
        for record in records
    }
    # The check that the most given-up items fail.
    name = max(failed, key=lambda key: failed[key]) if failed else ""
    ids = ", ".join(result.id for result in given_up[:3])
    yield (
        spent,
        Advice(
            f"{len(given_up)} items were given up after {spent:,} tokens "
            f"({_percent(spent, computed)} of all)"
            + (
                f", most often because of '{name}' ({failed[name]})."
                if name and failed[name]
                else "."
            ),
            f"Read the given-up items first ({ids}). A check may be impossible to pass there, or "
            "the prompt may lack a fact. A lower item_tokens in [budget] ends such items sooner.",
        ),
    )


def _costly(records: Sequence[CheckRecord], results: Sequence[Result]) -> Found:
    total, computed = sum(record.tokens for record in records), _computed(results)
    for record in records:
        # Advice about a check that costs little beside the others would distract.
        if record.tokens <= WORTH * computed or record.tokens < 0.25 * total:
            continue
        yield (
            record.tokens,
            Advice(
                f"'{record.name}' took back {record.tokens:,.0f} tokens "
                f"({_percent(record.tokens, total)} of all that was taken back), "
                f"{record.stops} times.",
                f"State in the prompt what this check requires, for example: “{record.often}”"
                if record.often
                else "State in the prompt what this check requires.",
            ),
        )


def _cut(job: Job, results: Sequence[Result]) -> Found:
    """Count the drafts that ended at the maximum length."""
    full = [
        draft
        for result in results
        for draft in result.drafts
        if draft.position >= job.max_new_tokens and draft.check
    ]
    spent = sum(lost_by(draft) for draft in full)
    if spent > WORTH * _computed(results):
        yield (
            spent,
            Advice(
                f"{len(full)} drafts were cut at max_new_tokens = {job.max_new_tokens}, and "
                f"{spent:,} of their tokens were taken back.",
                "Ask for a shorter reply in the prompt, or raise max_new_tokens in [sampling].",
            ),
        )


def _rounds(job: Job, results: Sequence[Result]) -> Found:
    """Find the number of rounds after which almost no item was accepted."""
    accepted = sorted(result.rounds for result in results if result.accepted)
    if not accepted or job.strategy.rounds < 3:
        return
    # The 99th percentile: one late success does not justify rounds for all hopeless items.
    enough = accepted[min(len(accepted) - 1, int(0.99 * len(accepted)))]
    late = sum(rounds > enough for rounds in accepted)
    spent = sum(
        lost_by(draft)
        for result in results
        if not result.accepted
        for draft in result.drafts
        if draft.round >= enough
    )
    if spent > WORTH * _computed(results) and enough < job.strategy.rounds:
        lost = f"{late} accepted replies needed more." if late else "No accepted reply needed more."
        yield (
            spent,
            Advice(
                f"Rounds after round {enough} of items that were given up took {spent:,} tokens. "
                f"{lost}",
                f"Set rounds = {enough} in [strategy] (now {job.strategy.rounds}).",
            ),
        )


def _refused_answers(results: Sequence[Result]) -> Found:
    refused: dict[str, int] = {}
    for result in results:
        if result.source == "model" and result.refused_answer:
            name = result.rule or "a past case"
            refused[name] = refused.get(name, 0) + result.tokens.computed
    for name, spent in refused.items():
        if spent:
            yield (
                spent,
                Advice(
                    f"Answers of {name} did not pass the checks, so the model wrote after all: "
                    f"{spent:,} tokens.",
                    "Fix that answer, or relax the check that refuses it.",
                ),
            )


def _errors(records: Sequence[CheckRecord]) -> Found:
    for record in records:
        if record.errors:
            yield (
                record.tokens,
                Advice(
                    f"'{record.name}' could not judge {record.errors} times.",
                    "Fix the check: an error counts as not passed.",
                ),
            )


def nothing_to_do(summary: Summary) -> Advice:
    """Return the advice for a job in which no rule found anything."""
    kept = _percent(summary.tokens_computed - summary.tokens_discarded, summary.tokens_computed)
    return Advice(f"{kept} of the computed tokens are in the replies.", "Nothing stands out.")
