"""The support job through the libraries that people use for it, and through ours.

All write with smollm2 and the adapter `support` under the same checks, without the example's rules
and past cases, at the same temperature, in at most eight tries: ours in the process, ours on a
server (`ostinato serve`), and on that server mellea (streaming validation, tried again), Guardrails
(asked again with the reasons) and DSPy's BestOfN, which is given plain messages. Left out is the
check `confidence`, which needs log-probabilities that peers do not hand on. The server counts the
tokens that it computes, those of broken streams and discarded drafts too, and those that it sends;
in the process every token that is drawn is received.

    pip install mellea dspy guardrails-ai
    python benchmarks/peers.py [--skip N] [--limit N] [--seed N] [--only …] [--save FILE] [--json]
    python benchmarks/peers.py --join FILE [--json]

A peer that is not installed is left out. Which drafts fail is luck, so one run of some messages
tells little: `--save` adds what each run took to a file, `--join` adds the file up, and shows
between which figures the runs lay. Ours is drawn with `--seed`, peers anew each time.
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
from ostinato.refine.refine import Refine
from ostinato.remote import Server, ServerLanes

JOB = Path(__file__).parent.parent / "examples" / "support" / "job.toml"
NAME = "support"
TRIES = 8
SIDE = 8  # items written at once
TEMPERATURE, LONGEST = 0.8, 80
Writer = Callable[[str, "Task"], list[str]]


class Taken(NamedTuple):
    """Tokens that a run took: computed by the model, and received from it."""

    computed: int
    received: int


class Ran(NamedTuple):
    """What a run of some messages gave and took. `kept` are the tokens of accepted replies."""

    name: str
    messages: int
    accepted: int
    kept: int
    computed: int
    received: int
    seconds: float


class Task:
    """What is to be written: items, their prompts, and the checks of a reply."""

    def __init__(self, limit: int, skip: int = 0, seed: int | None = None) -> None:
        self.job = read_job(JOB)
        self.items: list[Item] = self.job.items(skip + limit)[skip:]
        self.seed = self.job.seed if seed is None else seed
        self.checks: list[Check] = [c for c in self.job.checks if c.kind != "confidence"]
        self.planner = self.job.router()
        self.taken = Taken(0, 0)  # by the last run of ours

    def messages(self, item: Item) -> list[dict[str, str]]:
        """Return an item's conversation."""
        told = self.planner.messages(item.columns, {})
        assert not isinstance(told, str)
        return [dict(message) for message in told]

    def reasons(self, item: Item, reply: str) -> list[str]:
        """Return what the checks say against a reply; nothing where it passes."""
        verdicts = judge_all(self.checks, reply, item.columns, 10.0)
        return [v.message or "It failed a check." for v in verdicts if not v.passed]

    def refine(self, model: LanguageModel | Server) -> list[str]:
        """Write with ours, by `backtrack`."""
        refine = Refine(
            model,
            [(item.key, item.columns) for item in self.items],
            prompt=self.planner.messages,
            checks=self.checks,
            strategy=self.job.strategy,
            sampling=SamplingParams(temperature=TEMPERATURE, top_k=0, top_p=1.0),
            max_new_tokens=LONGEST,
            seed=self.seed,
            slots=SIDE,
        )
        rows: list[Any] = refine.run()
        totals = [sum(int(row["spent"].get(n, 0)) for row in rows) for n in ("computed", "tokens")]
        self.taken = Taken(*totals)
        if isinstance(refine.decode, ServerLanes):
            refine.decode.close()
        return [str(row["output"]) for row in rows]


def side_by_side(items: Sequence[Item], write: Callable[[Item], str]) -> list[str]:
    """Write the items in threads."""
    with ThreadPoolExecutor(SIDE) as threads:
        return list(threads.map(write, items))


def ours_server(url: str, task: Task) -> list[str]:
    """Ours on the server: streams that are closed, and gone on with from their good beginning."""
    server = Server(url=url, model=NAME, prefill="continue_final_message", top_logprobs=20)
    return task.refine(server)


def dspy(url: str, task: Task) -> list[str]:
    """DSPy's BestOfN: drafts until one has the whole reward."""
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
            (told,) = self.lm(messages=messages)
            return library.Prediction(reply=told["text"] if isinstance(told, dict) else told)

    settings = {"temperature": TEMPERATURE, "max_tokens": LONGEST, "cache": False}
    lm = SameTemperature(f"openai/{NAME}", api_base=url, api_key="none", **settings)

    def write(item: Item) -> str:
        module = Reply()
        module.set_lm(lm)

        def reward(given: Any, made: Any) -> float:
            verdicts = judge_all(task.checks, made.reply, item.columns, 10.0)
            return sum(verdict.passed for verdict in verdicts) / len(verdicts)

        best = library.BestOfN(module=module, N=TRIES, reward_fn=reward, threshold=1.0)
        with library.context(lm=lm, trace=[]):
            return str(best(messages=task.messages(item)).reply)

    return side_by_side(task.items, write)


def mellea(url: str, task: Task) -> list[str]:
    """mellea: a stream that ends when a check can no longer be met, tried again."""
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
        ModelOption.MAX_NEW_TOKENS: LONGEST,
        ModelOption.STREAM: True,
    }
    backend = OpenAIBackend(NAME, base_url=url, api_key="none", model_options=options)

    async def write(item: Item, free: asyncio.Semaphore) -> str:
        async with free:
            for _ in range(TRIES):
                context: Any = ChatContext()
                *before, asked = [Message(m["role"], m["content"]) for m in task.messages(item)]
                for message in before:
                    context = context.add(message)
                checks = [Passes(item)]  # whole drafts are judged below
                async with await stream(asked, backend, context, requirements=checks) as pieces:
                    text = "".join([piece async for piece in pieces])
                if not pieces.failed_early and not task.reasons(item, text):
                    break
            return text

    async def all_of_them() -> list[str]:
        free = asyncio.Semaphore(SIDE)
        return list(await asyncio.gather(*(write(item, free) for item in task.items)))

    return asyncio.run(all_of_them())


def guardrails(url: str, task: Task) -> list[str]:
    """Guardrails: a draft that fails is asked for again, with the reasons."""
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

    def ask(*_: Any, messages: Any, **__: Any) -> str:
        told = client.chat.completions.create(
            model=NAME, messages=messages, temperature=TEMPERATURE, max_tokens=LONGEST
        )
        return told.choices[0].message.content or ""

    def write(item: Item) -> str:
        guard = Guard().use(Passes(item, on_fail="reask"))
        made = guard(ask, messages=task.messages(item), num_reasks=TRIES - 1)
        return str(made.raw_llm_output)

    return side_by_side(task.items, write)


WRITERS: Mapping[str, Writer] = {
    "ours_server": ours_server,
    "mellea": mellea,
    "guardrails": guardrails,
    "dspy": dspy,
}


@contextmanager
def serving() -> Iterator[str]:
    """Serve the model in a process of its own; yield the base of its API."""
    command = "from ostinato.cli.main import main; main()"
    words = ["serve", "smollm2", "--adapter", "support", "--name", NAME, "--port", "0"]
    words += ["--slots", str(SIDE)]
    started = subprocess.Popen(
        [sys.executable, "-c", command, *words], stdout=subprocess.PIPE, text=True
    )
    assert started.stdout is not None
    try:
        yield started.stdout.readline().split(" is at ")[1].split(" ")[0]
    finally:
        started.terminate()
        started.wait(30)


def counted(url: str) -> Taken:
    """Return how many tokens the server has computed and sent so far."""
    with urlopen(url.removesuffix("/v1") + "/health") as answer:
        told = json.load(answer)
    return Taken(told["computed"], told["sent"])


def measured(
    task: Task, model: LanguageModel, name: str, replies: Sequence[str], taken: Taken, took: float
) -> Ran:
    """Return what a run gave and took; ends of texts are tokens too."""
    pairs = zip(task.items, replies, strict=True)
    good = [reply for item, reply in pairs if not task.reasons(item, reply)]
    kept = sum(len(model.tokenizer.encode(reply)) + 1 for reply in good)
    return Ran(name, len(replies), len(good), kept, *taken, took)


def runs(task: Task, model: LanguageModel, only: Sequence[str]) -> Iterator[Ran]:
    """Run each that is named."""
    if "ours" in only:
        began = time.perf_counter()
        replies = task.refine(model)
        took = time.perf_counter() - began
        yield measured(task, model, "ours", replies, task.taken, took)
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
                importlib.import_module(name)  # not in the seconds
            before, began = counted(url), time.perf_counter()
            replies = WRITERS[name](url, task)
            seconds = time.perf_counter() - began
            time.sleep(0.5)  # a broken stream leaves at its next token
            after = counted(url)
            taken = Taken(after.computed - before.computed, after.received - before.received)
            yield measured(task, model, name, replies, taken, seconds)


# What is told -----------------------------------------------------------------------------------


def table(told: Sequence[Ran]) -> dict[str, float]:
    """Print a line for each name, its runs added up; return the figures."""
    by_name: dict[str, list[Ran]] = defaultdict(list)
    for ran in told:
        by_name[ran.name].append(ran)
    print(f"{'':14} {'messages':>8} {'computed/accepted':>18} {'received':>9} ", end="")
    print(f"{'accepted':>9} {'s/100':>6}  computed, from run to run")
    flat: dict[str, float] = {}
    for name, parts in by_name.items():
        ran = Ran(
            name, *(sum(column) for column in zip(*(part[1:] for part in parts), strict=True))
        )
        figures = of_each(ran)
        flat |= {f"{name}.{key}": round(value, 4) for key, value in figures.items()}
        computed, received, accepted, wall = figures.values()
        ratios = [of_each(part)["tokens_per_accepted"] for part in parts]
        line = f"{name:14} {ran.messages:8} {computed:18.3f} {received:9.3f} {accepted:9.1%}"
        hundred = 100 * wall / ran.messages
        print(f"{line} {hundred:6.1f}  {min(ratios):.2f} to {max(ratios):.2f}, {len(parts)}")
    return flat


def of_each(ran: Ran) -> dict[str, float]:
    """Return what a run took for each accepted token, its accepted share, and its seconds."""
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
    parser.add_argument("--skip", type=int, default=0, help="leave out the first N items")
    parser.add_argument("--limit", type=int, default=40, help="take N items")
    parser.add_argument("--seed", type=int, help="draw ours with it (default: the job's)")
    parser.add_argument("--only", nargs="+", default=names, choices=names)
    parser.add_argument("--save", type=Path, metavar="FILE", help="add what each run took to it")
    parser.add_argument("--join", type=Path, metavar="FILE", help="add up what was saved, run none")
    parser.add_argument("--json", action="store_true", help="one JSON object on the last line")
    arguments = parser.parse_args()
    lines = arguments.join.read_text("utf-8").splitlines() if arguments.join else []
    flat = table([Ran(*json.loads(line)) for line in lines] or run(arguments))
    if arguments.json:
        print(json.dumps(flat))


def run(arguments: argparse.Namespace) -> list[Ran]:
    """Run what is asked for, and save it where that is asked for."""
    task = Task(arguments.limit, arguments.skip, arguments.seed)
    model = load_model("smollm2", adapter="support")
    print(f"{len(task.items)} items, {torch.get_num_threads()} threads, {platform.processor()}")
    told: list[Ran] = []
    for ran in runs(task, model, arguments.only):
        told.append(ran)
        if arguments.save:
            with arguments.save.open("a", encoding="utf-8") as file:
                file.write(json.dumps(ran) + "\n")
    return told


if __name__ == "__main__":
    main()
