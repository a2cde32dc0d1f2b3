"""A lane process that writes words, and jobs that it works on in place of a model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ostinato.checks import Template, judge_all
from ostinato.errors import ItemError
from ostinato.loop import (
    Budget,
    Lane,
    Lanes,
    Loop,
    Policy,
    Report,
    Steps,
    Text,
    Verdict,
    uniform,
)
from ostinato.refine.job.config import Job
from ostinato.refine.job.items import Item
from ostinato.refine.job.job_items import read_items
from ostinato.refine.job.job_run import JobRun, job_budget
from ostinato.refine.prompts import PromptTemplate, refuse_halves
from ostinato.refine.strategies.base import SteeringContext, StillPassable

WORDS = ("We", "can", "help", "you", "today", "obviously", "with", "it", "now", ".")

JOB = """\
input = "messages.jsonl"
id = "id"
model = "smollm2"
slots = 4

[prompt]
template = "{message}"

[[rule]]
name = "thanks"
column = "message"
pattern = "^thanks"
reply = "You are welcome."

[[check]]
kind = "length"
min = 3
max = 6

[[check]]
kind = "excludes"
name = "polite"
texts = ["obviously"]

[strategy]
kind = "abort"
rounds = 40
"""


def items_of(path: Path, id: str = "", template: str = "Hello") -> list[Item]:
    """Return the items of an input of a job with this prompt."""
    job = Job(
        file=path.with_name("job.toml"),
        input=path,
        output=path.with_name("replies.jsonl"),
        report=path.with_name("report.html"),
        model="smollm2",
        prompt=PromptTemplate(messages=(("user", Template(template)),)),
        checks=(),
        id=id,
    )
    return read_items(job)


class Scribe:
    """Writes random words; a full stop ends a text."""

    deterministic = True
    costs = ("tokens", "computed")
    unit = "tokens"

    def __init__(self, slots: int = 4) -> None:
        self.slots = slots
        self._lanes: dict[str, Lane] = {}
        self._words: dict[str, list[str]] = {}

    def start(self, lane: Lane, item: object) -> None:
        assert isinstance(item, Mapping)
        if item.get("message") == "broken":
            raise ItemError("This item is broken.")
        refuse_halves(item)  # as `Refine` does
        self._lanes[lane.key] = lane
        self._words[lane.key] = [str(report["word"]) for report in lane.past]

    def step(self) -> Mapping[str, Report]:
        reports = {}
        for key, said in self._words.items():
            lane = self._lanes[key]
            draw = uniform(lane.seed, key, lane.round, lane.backtracks, len(said))
            word = WORDS[int(draw * len(WORDS))]
            text = word if not said or word == "." else f" {word}"
            said.append(word)
            report = {"word": word, "text": text, "tokens": 1, "computed": 1, "logprob": -1.0}
            reports[key] = {**report, "ended": "It wrote a full stop."} if word == "." else report
        return reports

    def rewind(self, lane: Lane, to: int) -> None:
        self._lanes[lane.key] = lane
        del self._words[lane.key][to:]

    def output(self, key: str) -> Text:
        text, starts = "", []
        for word in self._words[key]:
            starts.append(len(text))
            text += word if not text or word == "." else f" {word}"
        ended = text.endswith(".")
        return Text(text, tuple(range(len(starts))), tuple(starts), (), ended)

    def drop(self, key: str) -> None:
        del self._lanes[key], self._words[key]


def scribe_loop(job_run: JobRun, model: object = None, *, say: object = None) -> Loop:
    """Return a job's loop with a scribe in the model's place."""
    job = job_run.job

    def judge(output: object, item: Mapping[str, object]) -> list[Verdict]:
        return list(judge_all(job.checks, output, item))

    each = Steps(job.max_new_tokens) | StillPassable(job.checks)
    if job.budgets.item_tokens is not None:
        each = each | Budget("tokens", job.budgets.item_tokens)
    lanes = Lanes(
        Scribe(job.slots),
        [(item.key, item.columns) for item in job_run.items],
        Policy(
            each=each,
            judge=judge,
            on_stop=job.strategy.on_stop(SteeringContext(lambda text: [0], -1, job.checks)),
            ready=job_run.router.ready,
        ),
        seed=job.seed,
    )
    return Loop(
        lanes,
        until=job_budget(job) or Steps(1 << 40),
        run=job_run.run,
        keep=job.keep,
    )


def write_job(folder: Path, messages: list[str], text: str = JOB) -> Path:
    """Write a job and its messages; return the job file."""
    lines = [f'{{"id": "m{n}", "message": "{message}"}}\n' for n, message in enumerate(messages)]
    (folder / "messages.jsonl").write_text("".join(lines), encoding="utf-8")
    path = folder / "mail.toml"
    path.write_text(text, encoding="utf-8")
    return path
