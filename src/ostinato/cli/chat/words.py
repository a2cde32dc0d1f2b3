"""What the chat says of an answer: in a line below it, and at length."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from typing import TYPE_CHECKING

from ostinato.arguments import counted

if TYPE_CHECKING:
    from ostinato.flow import Answer, Turn

SHOWN = 200  # characters of texts that were taken back


def status(answer: Answer) -> str:
    """Return a line about an answer: why it stopped, and what it took."""
    back = len(answer.taken_back) if answer.source == "model" else 0
    parts = [
        answer.why,
        "" if answer.accepted else "Not all checks pass.",
        f"Took back {counted(back, 'parts')}." if back else "",
        _cost(answer),
    ]
    return " ".join(part for part in parts if part)


def _cost(answer: Answer) -> str:
    if not answer.tokens:
        return ""
    return f"{counted(answer.tokens, 'tokens')}, {answer.seconds:.1f} s."


def why(turn: Turn, number: int) -> Iterator[str]:
    """Yield lines about the answer of a turn: its source, its checks, what was taken back."""
    answer = turn.answer
    yield f"Turn {number}: {answer.why}"
    if answer.handed_over:
        yield f"A person was asked: {answer.handed_over}"
    if answer.source == "model":
        more = answer.computed - answer.tokens
        yield (
            f"{counted(answer.rounds, 'rounds')}, went back {counted(answer.backtracks, 'times')}; "
            f"{counted(answer.tokens, 'tokens')} in the answer"
            + (f", {more} more computed" if more > 0 else "")
            + f"; {answer.seconds:.1f} s."
        )
    for verdict in answer.verdicts:
        said = verdict.error or verdict.message
        sign = "✓" if verdict.passed else "✕"
        yield f"  {sign} {verdict.check} ({verdict.score:.2f}){f': {said}' if said else ''}"
    for reason, group in groupby(answer.taken_back, key=lambda lost: lost.why):
        texts = ", ".join(repr(lost.text) for lost in group)
        shown = texts if len(texts) <= SHOWN else f"{texts[:SHOWN]}…"
        yield f"  taken back: {shown}: {reason}"
    if answer.memory is not None:
        left, summary = answer.memory
        yield f"  {counted(left, 'turns')} had left the memory{f': {summary}' if summary else '.'}"
