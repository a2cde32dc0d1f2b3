r"""The booking desk of job.toml as a flow: a rule or a past case answers, else the model.

    ostinato flow run examples/support/flow.py --over examples/support/messages.jsonl \
        --out out/flow.jsonl

Plain Python decides what comes after what; job.toml holds the rules, the cases and the checks.
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ostinato.decode import SamplingParams
from ostinato.flow import check, flow, generate
from ostinato.refine import read_job

JOB = read_job(Path(__file__).with_name("job.toml"))
ROUTER = JOB.router()
MODEL = f"{JOB.model}+{JOB.adapter}"
READY = [each for each in JOB.checks if each.kind != "confidence"]  # no token of it was sampled


@dataclass(frozen=True)
class Answer:
    """What the customer gets; one that is not `accepted` is for a colleague to mend."""

    reply: str
    accepted: bool
    source: str
    rounds: int = 0
    tokens: int = 0


@flow
def answer(row: dict[str, Any]) -> Answer:
    """Answer the customer's message of a row of messages.jsonl."""
    route = ROUTER.route(row)
    if route.reply is not None and check(route.reply, READY, given=row):
        return Answer(route.reply, accepted=True, source=route.source)
    reply = generate(
        route.messages,
        JOB.checks,
        given=row,
        model=MODEL,
        strategy=JOB.strategy,
        sampling=SamplingParams(**asdict(JOB.sampling)),
        max_new_tokens=JOB.max_new_tokens,
        tokens=JOB.budgets.item_tokens,
    )
    return Answer(str(reply), reply.accepted, "model", reply.rounds, reply.computed)
