"""What was said in a dialogue: turns, and what is known of each answer. Knows no flow."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Self

from ostinato.flow.text_calls import Reply

Source = Literal["model", "rule", "case", "person"]


class Memory(NamedTuple):
    """What a model reads of the turns before: all but the first `left`, which `summary` tells."""

    left: int = 0
    summary: str = ""


class Answer(Reply):
    """An answer in a dialogue: a `Reply` that knows where it comes from.

    `by` is the rule or the past message, where one of these is the `source`. `memory` is what the
    model read of the turns before, where turns have left it for this answer; else None. `seconds`
    is the time of the calls that it took. `handed_over` is why a person was asked.
    """

    source: Source
    by: str
    memory: Memory | None
    seconds: float
    handed_over: str
    spent: Mapping[str, float]

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Self:
        """Return the answer of a recorded call."""
        answer = super().of(row)
        answer.source, answer.by = row.get("source", "model"), row.get("by", "")
        memory = row.get("memory")
        answer.memory = None if memory is None else Memory(*memory)
        answer.spent = row.get("spent", {})
        answer.seconds = answer.spent.get("seconds", 0.0)
        answer.handed_over = row.get("handed_over", "")
        return answer


@dataclass(frozen=True, slots=True)
class Turn:
    """What was said, and the answer; `path` is that of the call, after which a run can branch."""

    said: str
    answer: Answer
    path: str
