"""The support job through the libraries that people use for it, and through ours.

    pip install mellea dspy guardrails-ai
    python benchmarks/peers.py [--skip N] [--limit N] [--seed N] [--only …] [--save FILE] [--json]
    python benchmarks/peers.py --join FILE [--json]

All write with smollm2 and the adapter `support` under the same checks, without the example's rules
and past cases, at the same temperature, with at most eight drafts. Ours runs in the process and on
a server (`ostinato serve`). On that server run mellea (streaming validation, then a new draft),
Guardrails (a new draft with the reasons) and DSPy's BestOfN (given plain messages). The check
`confidence` is left out: it needs log-probabilities, which the peers do not pass on.

The server counts the tokens that it computes, broken streams and discarded drafts included, and
those that it sends. In the process every sampled token counts as received.

A peer that is not installed is left out. Which drafts fail is chance, so one run of a few messages
says little. `--save` appends the cost of each run to a file; `--join` adds such a file up and shows
the range of the runs. Ours samples with `--seed`, the peers differently each time.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import importlib.util
import json
import os
import platform
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.request import urlopen

import torch

from ostinato.checks import check_prefix_all, judge_all
from ostinato.decode import SamplingParams
from ostinato.loop import Check, Text
from ostinato.models import LanguageModel, load_model
from ostinato.refine.job.file import read_job
from ostinato.refine.job.items import Item
from ostinato.refine.job.job_items import read_items
from ostinato.refine.refine import Refine
from ostinato.remote import Server, ServerLanes

JOB = Path(__file__).parent.parent / "examples" / "support" / "job.toml"
NAME = "support"
MAX_DRAFTS = 8
SLOTS = 8  # items written at once
TEMPERATURE, MAX_NEW_TOKENS = 0.8, 80
Writer = Callable[[str, "Task"], list[str]]


class TokenCost(NamedTuple):
    """The tokens of a run: computed by the model, and received from it."""

    computed: int
    received: int


class RunResult(NamedTuple):
    """The outcome and the cost of a run. `kept` are the tokens of accepted replies."""

    name: str
    messages: int
    accepted: int
    kept: int
    computed: int
    received: int
    seconds: float


class Task:
    """The job: items, their prompts, and the checks of a reply."""

    def __init__(self, limit: int, skip: int = 0, seed: int | None = None) -> None:
        self.job = read_job(JOB)
        self.items: list[Item] = read_items(self.job, skip + limit)[skip:]
        self.seed = self.job.seed if seed is None else seed
        self.checks: list[Check] = [c for c in self.job.checks if c.kind != "confidence"]
        self.router = self.job.router()
        self.cost = TokenCost(0, 0)  # of the last run of `refine`

    def messages(self, item: Item) -> list[dict[str, str]]:
        """Return an item's conversation."""
        messages = self.router.messages(item.columns, {})
        assert not isinstance(messages, str)
        return [dict(message) for message in messages]

    def reasons(self, item: Item, reply: str) -> list[str]:
        """Return the messages of the checks that a reply fails."""
        verdicts = judge_all(self.checks, reply, item.columns, 10.0)
        return [v.message or "It failed a check." for v in verdicts if not v.passed]

    def refine(self, model: LanguageModel | Server) -> list[str]:
        """Write all replies with ours, by `backtrack`."""
        refine = Refine(
            model,
            [(item.key, item.columns) for item in self.items],
            prompt=self.router.messages,
            checks=self.checks,
            strategy=self.job.strategy,
            sampling=SamplingParams(temperature=TEMPERATURE, top_k=0, top_p=1.0),
            max_new_tokens=MAX_NEW_TOKENS,
            seed=self.seed,
            slots=SLOTS,
        )
        rows: list[Any] = refine.run()
        spent = refine.lanes.spent
        totals = [int(spent.get(name, 0)) for name in ("computed", "tokens")]
        self.cost = TokenCost(*totals)
        if isinstance(refine.decode, ServerLanes):
            refine.decode.close()
        return [str(row["reply"]) for row in rows]


def side_by_side(items: Sequence[Item], write: Callable[[Item], str]) -> list[str]:
    """Write the items in as many threads as there are slots."""
    with ThreadPoolExecutor(SLOTS) as threads:
        return list(threads.map(write, items))


def ours_server(url: str, task: Task) -> list[str]:
    """Ours on the server: streams are closed at a fault and continued from the good prefix."""
    server = Server(url=url, model=NAME, prefill="continue_final_message", top_logprobs=20)
    return task.refine(server)


def dspy(url: str, task: Task) -> list[str]:
    """DSPy's BestOfN: drafts until one has the full reward."""
    import dspy as library

    class SameTemperature(library.LM):  # BestOfN would write at 1.0
        def copy(self, **settings: Any) -> Any:
            return super().copy(**{k: v for k, v in settings.items() if k != "temperature"})

    class Reply(library.Module):
        lm: Any = None

        def get_lm(self) -> Any:
            return self.lm

        def set_lm(self, lm: Any) -> None:
            self.lm = lm

        def forward(self, messages: list[dict[str, str]]) -> Any:
            (output,) = self.lm(messages=messages)
            text = output["text"] if isinstance(output, dict) else output
            return library.Prediction(reply=text)

    settings = {"temperature": TEMPERATURE, "max_tokens": MAX_NEW_TOKENS, "cache": False}
    lm = SameTemperature(f"openai/{NAME}", api_base=url, api_key="none", **settings)

    def write(item: Item) -> str:
        module = Reply()
        module.set_lm(lm)

        def reward(inputs: Any, prediction: Any) -> float:
            verdicts = judge_all(task.checks, prediction.reply, item.columns, 10.0)
            return sum(verdict.passed for verdict in verdicts) / len(verdicts)

        best = library.BestOfN(module=module, N=MAX_DRAFTS, reward_fn=reward, threshold=1.0)
        with library.context(lm=lm, trace=[]):
            return str(best(messages=task.messages(item)).reply)

    return side_by_side(task.items, write)


def mellea(url: str, task: Task) -> list[str]:
    """mellea: a stream ends when a check can no longer pass; then a new draft."""
    from mellea.backends.model_options import ModelOption
    from mellea.backends.openai import OpenAIBackend
    from mellea.core.requirement import (
        PartialValidationResult,
        Requirement,
        ValidationResult,
    )
    from mellea.stdlib.components.chat import Message
    from mellea.stdlib.context.chat import ChatContext
    from mellea.stdlib.streaming import stream

    class Passes(Requirement):
        def __init__(self, item: Item) -> None:
            super().__init__("The reply passes.", validation_fn=lambda _: ValidationResult(True))
            self.item, self.text = item, ""

        async def _stream_validate(self, chunk: str, *, backend: Any, ctx: Any) -> Any:
            self.text += chunk
            late: set[str] = set()
            found = check_prefix_all(task.checks, Text(self.text), self.item.columns, 10.0, late)
            return PartialValidationResult("fail" if found else "unknown")

    options = {
        ModelOption.TEMPERATURE: TEMPERATURE,
        ModelOption.MAX_NEW_TOKENS: MAX_NEW_TOKENS,
        ModelOption.STREAM: True,
    }
    backend = OpenAIBackend(NAME, base_url=url, api_key="none", model_options=options)

    async def write(item: Item, slots: asyncio.Semaphore) -> str:
        async with slots:
            for _ in range(MAX_DRAFTS):
                context: Any = ChatContext()
                *history, last = [Message(m["role"], m["content"]) for m in task.messages(item)]
                for message in history:
                    context = context.add(message)
                checks = [Passes(item)]  # complete drafts are judged below
                async with await stream(last, backend, context, requirements=checks) as chunks:
                    text = "".join([chunk async for chunk in chunks])
                if not chunks.failed_early and not task.reasons(item, text):
                    break
            return text

    async def all_of_them() -> list[str]:
        slots = asyncio.Semaphore(SLOTS)
        return list(await asyncio.gather(*(write(item, slots) for item in task.items)))

    return asyncio.run(all_of_them())


def guardrails(url: str, task: Task) -> list[str]:
    """Guardrails: after a draft that fails, a new one with the reasons in the prompt."""
    from guardrails import Guard
    from guardrails.validator_base import FailResult, PassResult, Validator, register_validator
    from openai import OpenAI

    client = OpenAI(base_url=url, api_key="none")

    @register_validator(name="passes", data_type="string")
    class Passes(Validator):
        def __init__(self, item: Item, on_fail: Any = None) -> None:
            super().__init__(on_fail=on_fail)
            self.item = item

        def validate(self, value: Any, metadata: Any) -> Any:
            reasons = task.reasons(self.item, str(value))
            return FailResult(error_message=" ".join(reasons)) if reasons else PassResult()

    def complete(*_: Any, messages: Any, **__: Any) -> str:
        response = client.chat.completions.create(
            model=NAME, messages=messages, temperature=TEMPERATURE, max_tokens=MAX_NEW_TOKENS
        )
        return response.choices[0].message.content or ""

    def write(item: Item) -> str:
        guard = Guard().use(Passes(item, on_fail="reask"))
        outcome = guard(complete, messages=task.messages(item), num_reasks=MAX_DRAFTS - 1)
        return str(outcome.raw_llm_output)

    return side_by_side(task.items, write)


WRITERS: Mapping[str, Writer] = {
    "ours_server": ours_server,
    "mellea": mellea,
    "guardrails": guardrails,
    "dspy": dspy,
}


@contextmanager
def serving() -> Iterator[str]:
    """Serve the model in its own process; yield the base URL of its API."""
    command = "from ostinato.cli.main import main; main()"
    arguments = ["serve", "smollm2", "--adapter", "support", "--name", NAME, "--port", "0"]
    arguments += ["--slots", str(SLOTS)]
    process = subprocess.Popen(
        [sys.executable, "-c", command, *arguments], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    try:
        yield process.stdout.readline().split(" is at ")[1].split(" ")[0]
    finally:
        process.terminate()
        process.wait(30)


def token_cost(url: str) -> TokenCost:
    """Return the tokens that the server has computed and sent so far."""
    with urlopen(url.removesuffix("/v1") + "/health") as response:
        health = json.load(response)
    return TokenCost(health["computed"], health["sent"])


def result_of(
    task: Task,
    model: LanguageModel,
    name: str,
    replies: Sequence[str],
    cost: TokenCost,
    seconds: float,
) -> RunResult:
    """Return the outcome and the cost of a run; end tokens count as tokens."""
    pairs = zip(task.items, replies, strict=True)
    good = [reply for item, reply in pairs if not task.reasons(item, reply)]
    kept = sum(len(model.tokenizer.encode(reply)) + 1 for reply in good)
    return RunResult(name, len(replies), len(good), kept, *cost, seconds)


def runs(task: Task, model: LanguageModel, only: Sequence[str]) -> Iterator[RunResult]:
    """Run the named ones, one after the other."""
    if "ours" in only:
        start = time.perf_counter()
        replies = task.refine(model)
        seconds = time.perf_counter() - start
        yield result_of(task, model, "ours", replies, task.cost, seconds)
    if set(only) <= {"ours"}:
        return
    with serving() as url:
        for name in WRITERS:
            if name not in only:
                continue
            if name != "ours_server" and importlib.util.find_spec(name) is None:
                print(f"{name} is left out: it is not installed (pip install {name}).")
                continue
            if name != "ours_server":
                importlib.import_module(name)  # so that its import is not timed
            before, start = token_cost(url), time.perf_counter()
            replies = WRITERS[name](url, task)
            seconds = time.perf_counter() - start
            time.sleep(0.5)  # the server notices a broken stream at its next token
            after = token_cost(url)
            cost = TokenCost(after.computed - before.computed, after.received - before.received)
            yield result_of(task, model, name, replies, cost, seconds)


# The report -------------------------------------------------------------------------------------


def table(results: Sequence[RunResult]) -> dict[str, float]:
    """Print a line for each name, its runs added up; return the figures."""
    by_name: dict[str, list[RunResult]] = defaultdict(list)
    for ran in results:
        by_name[ran.name].append(ran)
    print(f"{'':14} {'messages':>8} {'computed/accepted':>18} {'received':>9} ", end="")
    print(f"{'accepted':>9} {'s/100':>6}  computed, from run to run")
    flat: dict[str, float] = {}
    for name, parts in by_name.items():
        ran = RunResult(
            name, *(sum(column) for column in zip(*(part[1:] for part in parts), strict=True))
        )
        figures = figures_of(ran)
        flat |= {f"{name}.{key}": round(value, 4) for key, value in figures.items()}
        computed, received, accepted, wall = figures.values()
        ratios = [figures_of(part)["tokens_per_accepted"] for part in parts]
        line = f"{name:14} {ran.messages:8} {computed:18.3f} {received:9.3f} {accepted:9.1%}"
        hundred = 100 * wall / ran.messages
        print(f"{line} {hundred:6.1f}  {min(ratios):.2f} to {max(ratios):.2f}, {len(parts)}")
    return flat


def figures_of(ran: RunResult) -> dict[str, float]:
    """Return a run's tokens per accepted one, its accepted share, and its seconds."""
    kept = max(1, ran.kept)
    return {
        "tokens_per_accepted": ran.computed / kept,
        "received_per_accepted": ran.received / kept,
        "accepted": ran.accepted / ran.messages,
        "wall_s": ran.seconds,
    }


def main() -> None:
    """Run the benchmark."""
    quiet = {"MELLEA_LOG_LEVEL": "ERROR", "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
    for key, value in {**quiet, "OTEL_SDK_DISABLED": "true"}.items():
        os.environ.setdefault(key, value)
    parser = argparse.ArgumentParser(description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    names = ["ours", *WRITERS]
    parser.add_argument("--skip", type=int, default=0, help="skip the first N items")
    parser.add_argument("--limit", type=int, default=40, help="take N items")
    parser.add_argument("--seed", type=int, help="seed of ours [default: the job's]")
    parser.add_argument("--only", nargs="+", default=names, choices=names, help="what to run")
    parser.add_argument("--save", type=Path, metavar="FILE", help="append each run to it")
    parser.add_argument("--join", type=Path, metavar="FILE", help="add up saved runs, run nothing")
    parser.add_argument("--json", action="store_true", help="one JSON object on the last line")
    arguments = parser.parse_args()
    lines = arguments.join.read_text("utf-8").splitlines() if arguments.join else []
    flat = table([RunResult(*json.loads(line)) for line in lines] or run(arguments))
    if arguments.json:
        print(json.dumps(flat))


def run(arguments: argparse.Namespace) -> list[RunResult]:
    """Run what was chosen; append the results to `--save`."""
    task = Task(arguments.limit, arguments.skip, arguments.seed)
    model = load_model("smollm2", adapter="support")
    print(f"{len(task.items)} items, {torch.get_num_threads()} threads, {platform.processor()}")
    results: list[RunResult] = []
    for ran in runs(task, model, arguments.only):
        results.append(ran)
        if arguments.save:
            with arguments.save.open("a", encoding="utf-8") as file:
                file.write(json.dumps(ran) + "\n")
    return results


if __name__ == "__main__":
    main()
