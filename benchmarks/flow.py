"""What a durable call costs a flow, how fast calls are replayed, and flows beside a refine job.

    python -m benchmarks.flow [--peer-python VENV/bin/python] [--calls 2000] [--rows 64] [--json]

A call returns a constant. `bare_us` is the function alone, `call_us` the same as a step of a
recorded flow, `dbos_us` as a step of DBOS with its system database in SQLite, `langgraph_us` as a
task of LangGraph's functional API with its SQLite saver; medians of `--repeats`, in microseconds a
call. `replay_10k_s` is the time that a flow takes to make 10,000 recorded calls again.

`rows_per_s` is a flow around one `generate` with the checks and the strategy of the support job,
for its first rows; `refine_rows_per_s` is `Refine` over the same rows. Both write the same texts,
as they take the likeliest tokens, have loaded the model before, and alternate; medians again.

VENV has `dbos`, `langgraph` and `langgraph-checkpoint-sqlite`; without it only ours is measured.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

# The interpreters of the peers run this file too. They have no Ostinato, which functions import.

JOB = Path(__file__).parents[1] / "examples" / "support" / "job.toml"
REPLAYED = 10_000


def constant(number: int) -> int:
    """Return a constant: what each call computes."""
    return 1


class Stopwatch:
    """Measures a run of calls. An object, as a flow may not read a clock in a function."""

    def __init__(self) -> None:
        self.found: list[float] = []

    def __call__(self, call: Callable[[int], object], calls: int) -> float:
        """Make so many calls, and return the microseconds that each took."""
        began = time.perf_counter()
        for number in range(calls):
            call(number)
        self.found.append((time.perf_counter() - began) / calls * 1e6)
        return self.found[-1]


def bare(calls: int) -> float:
    """Measure the function alone."""
    return Stopwatch()(constant, calls)


# Ours -------------------------------------------------------------------------------------------


def ours(folder: Path, calls: int, repeats: int) -> float:
    """Measure the function as a step of a recorded flow, within the flow."""
    from ostinato.flow import flow, step
    from ostinato.journal import Journal

    made, watch = step(constant), Stopwatch()

    @flow
    def work(count: int) -> None:
        watch(made, count)

    with Journal(folder / "journal.db") as journal:
        for number in range(repeats):
            work.run(calls, run=f"calls-{number}", journal=journal)
    return statistics.median(watch.found)


def replay(folder: Path) -> float:
    """Return the seconds that a flow takes to make 10,000 recorded calls again."""
    from ostinato.errors import Unanswered
    from ostinato.flow import ask, flow, step
    from ostinato.journal import Journal

    made = step(constant)

    @flow
    def work(count: int) -> Any:
        for number in range(count):
            made(number)
        return ask("Done?")

    def until_asked() -> float:
        began = time.perf_counter()
        try:
            work.run(REPLAYED, run="replayed", journal=journal)
        except Unanswered:
            return time.perf_counter() - began
        raise AssertionError

    with Journal(folder / "replay.db") as journal:
        until_asked()
        return statistics.median(until_asked() for _ in range(3))


def rows_per_second(rows: int, repeats: int) -> dict[str, float]:
    """Return how many rows a flow and `Refine` write in a second, with the support job's parts."""
    from dataclasses import asdict

    from ostinato.decode import SamplingParams
    from ostinato.flow import flow, generate
    from ostinato.models import load_model
    from ostinato.refine import Refine, read_items, read_job

    job = read_job(JOB)
    model = load_model(job.model, adapter=job.adapter or None)
    # The likeliest tokens: both write the same texts.
    sampling = SamplingParams(**{**asdict(job.sampling), "temperature": 0.0})
    router = job.router()
    chosen = [item for item in read_items(job) if router.ready(item.columns) is None][:rows]
    settings: dict[str, Any] = {
        "strategy": job.strategy,
        "sampling": sampling,
        "max_new_tokens": job.max_new_tokens,
        "tokens": job.budgets.item_tokens,
    }

    @flow
    def reply(row: dict[str, Any]) -> str:
        prompt = router.messages(row, {})
        return generate(prompt, job.checks, given=row, **settings)

    def by_flow() -> float:
        began = time.perf_counter()
        count = sum(1 for _ in reply.over([item.columns for item in chosen], model=model))
        return count / (time.perf_counter() - began)

    def by_refine() -> float:
        items = [(item.key, item.columns) for item in chosen]
        refine = Refine(model, items, prompt=router.messages, checks=job.checks, **settings)
        began = time.perf_counter()
        count = sum(1 for _ in refine)
        return count / (time.perf_counter() - began)

    by_refine()
    pairs = [(by_flow(), by_refine()) for _ in range(repeats)]
    return {
        "rows_per_s": statistics.median(each for each, _ in pairs),
        "refine_rows_per_s": statistics.median(each for _, each in pairs),
        "rows_share": statistics.median(each / other for each, other in pairs),
    }


# The peers --------------------------------------------------------------------------------------


def dbos(folder: Path, calls: int, repeats: int) -> float:
    """Measure a step of DBOS, whose system database is a SQLite file."""
    from dbos import DBOS

    url = f"sqlite:///{folder / 'dbos.sqlite'}"
    DBOS(config={"name": "flow-benchmark", "system_database_url": url, "run_admin_server": False})
    made = DBOS.step()(constant)

    @DBOS.workflow()  # type: ignore[untyped-decorator]
    def work(count: int) -> float:
        return Stopwatch()(made, count)

    DBOS.launch()
    try:
        return statistics.median(float(work(calls)) for _ in range(repeats))
    finally:
        DBOS.destroy()


def langgraph(folder: Path, calls: int, repeats: int) -> float:
    """Measure a task of LangGraph's functional API, with its SQLite saver."""
    from langgraph.checkpoint.sqlite import SqliteSaver
    from langgraph.func import entrypoint, task

    made = task(constant)
    with SqliteSaver.from_conn_string(str(folder / "langgraph.sqlite")) as saver:

        @entrypoint(checkpointer=saver)  # type: ignore[untyped-decorator]
        def work(count: int) -> float:
            return Stopwatch()(lambda number: made(number).result(), count)

        found = []
        for number in range(repeats):
            thread = {"configurable": {"thread_id": str(number)}}
            found.append(float(work.invoke(calls, thread)))
        return statistics.median(found)


PEERS = {"dbos": dbos, "langgraph": langgraph}


def call_peer(python: str, peer: str, calls: int, repeats: int) -> float:
    """Measure a peer in its own interpreter."""
    command = [python, __file__, "--run-peer", peer]
    options = ["--calls", str(calls), "--repeats", str(repeats)]
    done = subprocess.run([*command, *options], stdout=subprocess.PIPE, text=True, check=True)
    return float(json.loads(done.stdout.strip().splitlines()[-1]))


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Measure all that was asked for."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        found: dict[str, Any] = {
            "bare_us": statistics.median(bare(options.calls) for _ in range(options.repeats)),
            "call_us": ours(folder, options.calls, options.repeats),
            "replay_10k_s": replay(folder),
        }
    if options.peer_python is not None:
        for peer in PEERS:
            us = call_peer(options.peer_python, peer, options.peer_calls, options.repeats)
            found[f"{peer}_us"] = us
        better = min(found[f"{peer}_us"] for peer in PEERS)
        found["share_of_peer"] = found["call_us"] / better
    if options.rows:
        found |= rows_per_second(options.rows, options.repeats)
    return {name: round(value, 3) for name, value in found.items()}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.flow",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--calls", type=int, default=2000, help="calls of ours in a run")
    parser.add_argument("--peer-calls", type=int, default=300, help="calls of a peer in a run")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--rows", type=int, default=64, help="rows of the support job; 0: none")
    parser.add_argument("--peer-python", help="an interpreter with dbos and langgraph")
    parser.add_argument("--run-peer", choices=PEERS, help=argparse.SUPPRESS)
    parser.add_argument("--json", action="store_true", help="one JSON object on the last line")
    options = parser.parse_args()
    if options.run_peer:
        with tempfile.TemporaryDirectory() as name:
            print(PEERS[options.run_peer](Path(name), options.calls, options.repeats))
        return
    found = measure(options)
    for name, value in found.items():
        print(f"{name:20} {value:g}")
    if options.json:
        print(json.dumps({**found, "machine": platform.processor() or platform.machine()}))


if __name__ == "__main__":
    main()
