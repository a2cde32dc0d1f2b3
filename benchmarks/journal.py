"""What the journal costs a loop, how soon others see its steps, and how large it grows.

    python -m benchmarks.journal [--steps 200000] [--calls 10000] [--repeats 5] [--json]

`loop_us` is `Loop` without a journal over a bare `for` (`bare_us`), `journal_us` what the journal
adds, in microseconds a step. `visible` is the time from a step's end to the moment when another
process reads it, while the loop takes 1, 100 and 5,000 steps/s: the 50th and the 99th percentile of
all three together, and of each (`visible.RATE.p99_ms`). `idle_cpu_share` is the processor time of a
process whose loop waits in one long step, without what waiting takes without a journal.
`call_us` is a durable call, in microseconds, where 64 callers call at once and share syncs;
`sync_us` is one sync of 4 KiB at the end of a file on the same disk.
`bytes_per_step` is the journal's size after 100,000 fast steps of one number; `slow_bytes_per_step`
after the 100 steps/s.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from pathlib import Path

from benchmarks.loop_overhead import RARE, Nothing, bare, journaled, ours
from ostinato.journal import Journal
from ostinato.loop import Loop, Report, Steps

RATES = {1: 8, 100: 800, 5000: 20_000}
"""Steps that are taken at each rate, in steps/s."""
SAMPLES = 400
"""Steps of each rate that are looked for, at most."""
IDLE_SECONDS = 5.0
CALLERS = 64


class Paced(Nothing):
    """A step at each instant of a clock; it reports when it was taken."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate, self.start = rate, time.monotonic()

    def step(self) -> Report:
        """Wait for the step's time."""
        self.count += 1
        due = self.start + self.count / self.rate
        while (left := due - time.monotonic()) > 0:
            time.sleep(left)
        return {"loss": 0.5, "at": time.monotonic()}


class Waiting(Nothing):
    """One long step."""

    def step(self) -> Report:
        """Wait."""
        time.sleep(IDLE_SECONDS)
        return super().step()


def watch(path: str, end: Connection) -> None:
    """Read steps as they are committed; send how long each could not be seen, in seconds."""
    with Journal(path) as journal:
        run, seen, delays = journal.get("paced"), 0, list[float]()
        while not end.poll():
            for record in run.steps(seen):
                delays.append(time.monotonic() - float(str(record.report["at"])))
                seen = record.tick
            time.sleep(0.0005)
    end.send(delays)


def visible(rate: int, steps: int, folder: Path) -> tuple[list[float], float]:
    """Return how long steps were not to be seen, in ms, and the journal's bytes per step."""
    path = folder / f"{rate}.db"
    with Journal(path) as journal:
        journal.create("paced", kind="Paced")
        ours, theirs = multiprocessing.Pipe()
        watcher = multiprocessing.get_context("spawn").Process(
            target=watch, args=(str(path), theirs)
        )
        watcher.start()
        time.sleep(1.0)  # it has imported what it needs
        Loop(Paced(rate), until=Steps(steps), run="paced", journal=journal, checkpoint=RARE).run()
        time.sleep(0.2)
        ours.send("end")
        delays = ours.recv()
        watcher.join()
    apart = max(1, len(delays) // SAMPLES)
    return [1000 * delay for delay in delays[::apart]], path.stat().st_size / steps


def idle_share() -> float:
    """Return the share of a processor that a journaled loop takes while it waits in a step."""
    with tempfile.TemporaryDirectory() as folder, Journal(Path(folder) / "journal.db") as journal:
        loop = Loop(Waiting(), until=Steps(1), run="idle", journal=journal, checkpoint=RARE)
        time.sleep(0.5)
        start = time.process_time()
        next(iter(loop))
        spent = time.process_time() - start
        loop.close()
    return spent / IDLE_SECONDS


def bytes_per_step(steps: int = 100_000) -> float:
    """Return the journal's bytes for a fast step of one number."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "journal.db"
        with Journal(path) as journal:
            Loop(Nothing(), until=Steps(steps), run="a", journal=journal, checkpoint=RARE).run()
        return path.stat().st_size / steps


def durable_calls(calls: int) -> dict[str, float]:
    """Return what a durable call takes where many callers call at once, and what a sync takes."""
    with tempfile.TemporaryDirectory(dir=".") as folder:
        with (
            Journal(Path(folder) / "journal.db") as journal,
            journal.drive(journal.create("a", kind="Flow")) as session,
            ThreadPoolExecutor(CALLERS) as pool,
        ):

            def call(n: int) -> object:
                return session.call(f"call/{n}", lambda n: n, {"n": n})

            list(pool.map(call, range(-CALLERS, 0)))  # the threads have started
            start = time.perf_counter()
            list(pool.map(call, range(calls)))
            spent = time.perf_counter() - start
        return {"call_us": spent / calls * 1e6, "sync_us": sync_us(Path(folder) / "file")}


def sync_us(path: Path, times: int = 50) -> float:
    """Return the median time of a sync, in microseconds."""
    took: list[float] = []
    with path.open("wb") as file:
        for _ in range(times):
            file.write(bytes(4096))
            file.flush()
            start = time.perf_counter()
            os.fsync(file.fileno())
            took.append(time.perf_counter() - start)
    return statistics.median(took) * 1e6


def each_us(run: Callable[[int], object], steps: int) -> float:
    start = time.perf_counter()
    run(steps)
    return (time.perf_counter() - start) / steps * 1e6


def percentile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.journal",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--steps", type=int, default=200_000, help="steps of a timed loop")
    parser.add_argument("--calls", type=int, default=10_000, help="durable calls that are timed")
    parser.add_argument("--repeats", type=int, default=5, help="whose median counts")
    parser.add_argument("--json", action="store_true", help="one JSON object on the last line")
    options = parser.parse_args()
    ways = {"bare": bare, "loop": ours, "journal": journaled}
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(options.repeats):
        for name, way in ways.items():
            times[name].append(each_us(way, options.steps))
    median = {name: statistics.median(found) for name, found in times.items()}
    figures = {
        "loop_us": median["loop"] - median["bare"],
        "bare_us": median["bare"],
        "journal_us": median["journal"] - median["loop"],
    }
    everything: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        for rate, steps in RATES.items():
            delays, size = visible(rate, steps, Path(folder))
            everything += delays
            figures[f"visible.{rate}.p50_ms"] = percentile(delays, 0.5)
            figures[f"visible.{rate}.p99_ms"] = percentile(delays, 0.99)
            if rate == 100:
                figures["slow_bytes_per_step"] = size
    figures["visible_p50_ms"] = percentile(everything, 0.5)
    figures["visible_p99_ms"] = percentile(everything, 0.99)
    figures["idle_cpu_share"] = idle_share()
    calls = [durable_calls(options.calls) for _ in range(options.repeats)]
    figures |= {name: statistics.median(each[name] for each in calls) for name in calls[0]}
    figures["bytes_per_step"] = bytes_per_step()
    print(f"{platform.machine()}, Python {platform.python_version()}")
    for name, value in figures.items():
        print(f"{name:24} {value:10.4f}")
    if options.json:
        print(json.dumps({name: round(value, 5) for name, value in figures.items()}))


if __name__ == "__main__":
    main()
