"""What a durable call costs a flow, how fast calls are replayed, and flows beside a refine job.

    python -m benchmarks.flow [--peer-python VENV/bin/python] [--calls 2000] [--rows 64] [--json]

A call returns a constant. `bare_us` is the function alone, `call_us` the same as a step of a
recorded flow, `dbos_us` as a step of DBOS with its system database in SQLite, `langgraph_us` as a
task of LangGraph's functional API with its SQLite saver; medians of `--repeats`, in microseconds a
call. `cpu` in a name: the processor's time alone, which other programs change little.
`replay_10k_s` is the time that a flow takes to make 10,000 recorded calls again.

`rows_per_s` is a flow around one `generate` with the checks and the strategy of the support job,
for its first rows; `refine_rows_per_s` is `Refine` over the same rows. Both write the same texts,
have loaded the model before, and alternate. `rows_share` is the median of their ratios, and
`rows_cpu_share` that of their processor times.

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
from typing import Any, NamedTuple

# The interpreters of the peers run this file too. They have no Ostinato, which functions import.

JOB = Path(__file__).parents[1] / "examples" / "support" / "job.toml"
REPLAYED = 10_000


def constant(number: int) -> int:
    """Return a constant: what each call computes."""
    return 1


class Cost(NamedTuple):
    """What a call takes, in microseconds: by the clock, and of the processor."""

    us: float
    cpu_us: float


class Stopwatch:
    """Measures calls. An object, as a flow may not read a clock in a function."""

    def __init__(self) -> None:
        self.costs: list[Cost] = []

    def __call__(self, call: Callable[[int], object], calls: int) -> None:
        """Make so many calls, and measure one of them on average."""
        began, used = time.perf_counter(), time.process_time()
        for number in range(calls):
            call(number)
        took, used = time.perf_counter() - began, time.process_time() - used
        self.costs.append(Cost(took / calls * 1e6, used / calls * 1e6))

    @property
    def median(self) -> Cost:
        """The median of each figure."""
        return Cost(*map(statistics.median, zip(*self.costs, strict=True)))


def bare(calls: int, repeats: int) -> Cost:
    """Measure the function alone."""
    watch = Stopwatch()
    for _ in range(repeats):
        watch(constant, calls)
    return watch.median


# Ours -------------------------------------------------------------------------------------------


def ours(folder: Path, calls: int, repeats: int) -> Cost:
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
    return watch.median


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
    from ostinato.flow import flow, generate, prefix_of
    from ostinato.models import load_model
    from ostinato.refine import Refine, keyed, read_items, read_job

    job = read_job(JOB)
    model = load_model(job.model, adapter=job.adapter or None)
    router, sampling = job.router(), SamplingParams(**asdict(job.sampling))
    ready = [item.columns for item in read_items(job) if router.ready(item.columns) is None]
    chosen = keyed(ready[:rows])
    # The random numbers of a text depend on its key: here both write the same texts.
    items = [(f"{prefix_of(key)}1:generate", columns) for key, columns in chosen]
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

    def by_flow() -> list[object]:
        texts = dict(reply.over([columns for _, columns in chosen], model=model))
        return [texts[key] for key, _ in chosen]

    def by_refine() -> list[object]:
        refine = Refine(model, items, prompt=router.messages, checks=job.checks, **settings)
        return [row["reply"] for row in refine.run(progress=False)]

    if by_refine() != by_flow():
        raise AssertionError("A flow must write the same texts as Refine.")
    return _shares(by_flow, by_refine, len(chosen), repeats)


def _shares(
    by_flow: Callable[[], object], by_refine: Callable[[], object], rows: int, repeats: int
) -> dict[str, float]:
    flows, refines = Stopwatch(), Stopwatch()
    for _ in range(repeats):
        flows(lambda _: by_flow(), 1)
        refines(lambda _: by_refine(), 1)
    pairs = list(zip(flows.costs, refines.costs, strict=True))
    return {
        "rows_per_s": rows / flows.median.us * 1e6,
        "refine_rows_per_s": rows / refines.median.us * 1e6,
        "rows_share": statistics.median(refine.us / flow.us for flow, refine in pairs),
        "rows_cpu_share": statistics.median(refine.cpu_us / flow.cpu_us for flow, refine in pairs),
    }


# The peers --------------------------------------------------------------------------------------


def dbos(folder: Path, calls: int, repeats: int) -> Cost:
    """Measure a step of DBOS, whose system database is a SQLite file."""
    from dbos import DBOS

    url = f"sqlite:///{folder / 'dbos.sqlite'}"
    DBOS(config={"name": "flow-benchmark", "system_database_url": url, "run_admin_server": False})
    made, watch = DBOS.step()(constant), Stopwatch()

    @DBOS.workflow()  # type: ignore[untyped-decorator]
    def work(count: int) -> None:
        watch(made, count)

    DBOS.launch()
    try:
        for _ in range(repeats):
            work(calls)
    finally:
        DBOS.destroy()
    return watch.median


def langgraph(folder: Path, calls: int, repeats: int) -> Cost:
    """Measure a task of LangGraph's functional API, with its SQLite saver."""
    from langgraph.checkpoint.sqlite import SqliteSaver
    from langgraph.func import entrypoint, task

    made, watch = task(constant), Stopwatch()
    with SqliteSaver.from_conn_string(str(folder / "langgraph.sqlite")) as saver:

        @entrypoint(checkpointer=saver)  # type: ignore[untyped-decorator]
        def work(count: int) -> int:
            watch(lambda number: made(number).result(), count)
            return count

        for number in range(repeats):
            work.invoke(calls, {"configurable": {"thread_id": str(number)}})
    return watch.median


PEERS = {"dbos": dbos, "langgraph": langgraph}


def call_peer(python: str, peer: str, calls: int, repeats: int) -> Cost:
    """Measure a peer in its own interpreter."""
    command = [python, __file__, "--run-peer", peer]
    options = ["--calls", str(calls), "--repeats", str(repeats)]
    done = subprocess.run([*command, *options], stdout=subprocess.PIPE, text=True, check=True)
    return Cost(*json.loads(done.stdout.strip().splitlines()[-1]))


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Measure all that was asked for."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        costs = {
            "bare": bare(options.calls, options.repeats),
            "call": ours(folder, options.calls, options.repeats),
        }
        found: dict[str, Any] = {"replay_10k_s": replay(folder)}
    if options.peer_python is not None:
        for peer in PEERS:
            costs[peer] = call_peer(options.peer_python, peer, options.peer_calls, options.repeats)
        found["share_of_peer"] = costs["call"].us / min(costs[peer].us for peer in PEERS)
    for each, cost in costs.items():
        found |= {f"{each}_us": cost.us, f"{each}_cpu_us": cost.cpu_us}
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
            cost = PEERS[options.run_peer](Path(name), options.calls, options.repeats)
            print(json.dumps(cost))
        return
    found = measure(options)
    for name, value in found.items():
        print(f"{name:20} {value:g}")
    if options.json:
        print(json.dumps({**found, "machine": platform.processor() or platform.machine()}))


if __name__ == "__main__":
    main()
