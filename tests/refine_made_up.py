"""Made-up jobs and rows of lanes, for tests of results and of the report."""

from __future__ import annotations

import json
from pathlib import Path

from ostinato.journal import StopKind, Stopped
from ostinato.loop import Verdict, fold_in, judged
from ostinato.refine.job.config import Job
from ostinato.refine.job.file import read_job
from ostinato.refine.job.items import Item
from ostinato.refine.job.job_items import read_items

JOB = """\
input = "messages.jsonl"
id = "id"
model = "smollm2+support"
seed = 7

[prompt]
system = "You answer customers of {service}."
template = "{message}"

[[rule]]
name = "goodbye"
column = "message"
pattern = "^(bye|thanks)"
reply = "You are welcome! Have a good day."

[[check]]
kind = "length"
min = 4
max = 24

[[check]]
kind = "contains"
name = "answers"
column = "asked"

[[check]]
kind = "excludes"
name = "polite"
texts = ["obviously", "you people"]

[strategy]
kind = "backtrack"
rounds = 4
"""

MESSAGES = (
    ("hotels", "Is breakfast included at the Palace, and what is the phone number?", "555-0142"),
    ("restaurants", "Please book a table for four at seven. What is the address?", "12 Harbour St"),
    ("flights", "How long is the stop in Denver on the way to Boston?", "95 minutes"),
    ("rentals", "Which car can I get from Friday to Sunday, and at what price?", "$87"),
    ("banking", "What is left on my savings account?", "$1,204.50"),
    ("media", "Who directed it? <b>And</b> does it have subtitles? </script>", "Agnès Varda"),
)

DRAFTS = (
    "The Palace serves breakfast from 6:30 to 10, and you can reach them at {asked}.",
    "I have found one for you. {asked}. Shall I go ahead with it?",
    "It is {asked}. Is there something else that I can do for you today?",
)


def job_folder(folder: Path, count: int = 12, text: str = JOB) -> Path:
    """Write a job with its input; return the job file."""
    lines = []
    for n in range(count):
        service, message, asked = MESSAGES[n % len(MESSAGES)]
        row = {"id": f"m-{n + 1:03}", "service": service, "message": message, "asked": asked}
        if n % 11 == 10:
            row |= {"message": "Thanks, that is all.", "asked": ""}
        lines.append(json.dumps(row, ensure_ascii=False))
    (folder / "messages.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    path = folder / "support.toml"
    path.write_text(text, encoding="utf-8")
    return path


def made_up(folder: Path, count: int = 12) -> tuple[Job, list[Item], list[dict[str, object]]]:
    """Return a job, its items, and rows as `Lanes` would give them."""
    job = read_job(job_folder(folder, count))
    items = read_items(job)
    return job, items, [lane_row(job, item) for item in items]


def lane_row(job: Job, item: Item) -> dict[str, object]:
    """Return a row: some pass at once, some go back, some start over, some are given up."""
    ready = job.router().ready(item.columns)
    if ready is not None:
        verdicts = verdicts_of(job, item, ready)
        stopped = Stopped(StopKind.PASSED, "It passed all 3 checks.", "ready")
        return _row(item, ready, verdicts, stopped, [], accepted=True, length=0, computed=0)
    way = fold_in(7, "made up", item.index) % 10
    asked = str(item.columns["asked"])
    good = DRAFTS[item.index % 3].format(asked=asked)
    if way < 5:
        attempts = [_whole(job, item, good, 0, 0, "accept")]
        return _finished(job, item, good, attempts, accepted=True)
    if way < 8:
        bad = good[: len(good) // 2] + " and obviously"
        attempts = [
            _foreseen(bad, "polite", 'Leave out "obviously": it is not allowed.', item.index % 4),
            _whole(job, item, good, 0, 1, "accept"),
        ]
        return _finished(job, item, good, attempts, accepted=True)
    bad = "I can help you with that. Would you like me to look it up, or to book it right away?"
    if way == 8:
        attempts = [
            _whole(job, item, bad, 0, 0, "start over"),
            _whole(job, item, good, 1, 0, "accept"),
        ]
        return _finished(job, item, good, attempts, accepted=True)
    attempts = [
        _whole(job, item, bad, n, 0, "start over" if n < 3 else "give up") for n in range(4)
    ]
    return _finished(job, item, bad, attempts, accepted=False)


def verdicts_of(job: Job, item: Item, text: str) -> list[Verdict]:
    """Judge a text by the job's checks."""
    return [check.judge(text, item.columns) for check in job.checks]


def tokens_of(text: str) -> int:
    """Return a plausible number of tokens."""
    return len(text) // 4 + 1


def _finished(
    job: Job, item: Item, reply: str, attempts: list[dict[str, object]], accepted: bool
) -> dict[str, object]:
    verdicts = verdicts_of(job, item, reply)
    stopped = judged(verdicts)
    if not accepted:
        sentence = f"It is out of rounds: all 4 rounds failed. {stopped.sentence}"
        stopped = Stopped(StopKind.FAILED, sentence, stopped.condition)
    lost = sum(int(str(attempt["lost"])) for attempt in attempts)
    length = tokens_of(reply)
    return _row(
        item,
        reply,
        verdicts,
        stopped,
        attempts,
        accepted=accepted,
        length=length,
        computed=length + lost,
    )


def _row(
    item: Item,
    reply: str,
    verdicts: list[Verdict],
    stopped: Stopped,
    attempts: list[dict[str, object]],
    *,
    accepted: bool,
    length: int,
    computed: int,
) -> dict[str, object]:
    rounds = {attempt["round"] for attempt in attempts}
    return {
        "key": item.key,
        "index": item.index,
        "output": reply,
        "accepted": accepted,
        "stopped": stopped.to_json(),
        "verdicts": [verdict.to_json() for verdict in verdicts],
        "rounds": max(1, len(rounds)),
        "backtracks": len(attempts) - len(rounds),
        "length": length,
        "logprob": -0.6 * length,
        "spent": {"tokens": computed, "computed": computed, "prompt": 80 if length else 0},
        "attempts": attempts,
    }


def _whole(
    job: Job, item: Item, text: str, round: int, backtracks: int, answer: str
) -> dict[str, object]:
    verdicts = verdicts_of(job, item, text)
    length = tokens_of(text)
    return {
        "round": round,
        "try": backtracks,
        "position": length,
        "stopped": judged(verdicts).to_json(),
        "answer": {"answer": answer},
        "text": text,
        "verdicts": [verdict.to_json() for verdict in verdicts],
        "lost": length if answer == "start over" else 0,
    }


def _foreseen(text: str, check: str, message: str, more: int) -> dict[str, object]:
    position, lost = tokens_of(text), 3 + more
    start = len(text) - len(" obviously")
    stopped = Stopped(
        StopKind.FAILED, f"{check}: {message}", check, {"start": start, "end": len(text)}
    )
    return {
        "round": 0,
        "try": 0,
        "position": position,
        "stopped": stopped.to_json(),
        "answer": {"answer": "go back", "to": position - lost, "edits": {}, "reason": message},
        "text": text,
        "verdicts": [],
        "lost": lost,
    }
