"""Where a refine job's time goes: the network, or the rest (sampling, checks, engine, journal).

Also what the journal costs: recording every step against recording results only.

    python benchmarks/job_share.py [--limit N] [--repeats R] [--json]
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import torch

from ostinato.decode import Decode
from ostinato.journal import Journal
from ostinato.models import LanguageModel, load_model
from ostinato.refine import read_job
from ostinato.refine.job.config import Job
from ostinato.refine.job.items import Item
from ostinato.refine.job.job_items import read_items
from ostinato.refine.job.job_run import refinement

JOB = Path(__file__).parent.parent / "examples" / "support" / "job.toml"


class Clock:
    """Adds up the time spent in the network."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def wrap(self, call: Callable[..., Any]) -> Callable[..., Any]:
        """Return the call with its time added to `seconds`."""

        def timed(*arguments: Any, **named: Any) -> Any:
            start = time.perf_counter()
            try:
                return call(*arguments, **named)
            finally:
                self.seconds += time.perf_counter() - start

        return timed


def run(
    job: Job, items: list[Item], model: LanguageModel, keep: Literal["steps", "results"]
) -> tuple[float, float]:
    """Return the seconds of a whole run, and those of them in the network."""
    refine = refinement(job, items, job.router(), model, ready=None)
    assert isinstance(refine.decode, Decode)
    clock, inference = Clock(), refine.decode._inference
    for name in ("prefill", "copy", "feed", "logits"):
        setattr(inference, name, clock.wrap(getattr(inference, name)))
    with tempfile.TemporaryDirectory() as folder:
        journal = Journal(Path(folder) / "journal.db")
        loop = refine.loop(run="share", journal=journal, keep=keep)
        start = time.perf_counter()
        loop.run()
        seconds = time.perf_counter() - start
        journal.close()
    return seconds, clock.seconds


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--limit", type=int, default=32, help="take the first N items")
    parser.add_argument("--repeats", type=int, default=3, help="runs whose median counts")
    parser.add_argument("--json", action="store_true", help="one JSON object on the last line")
    arguments = parser.parse_args()
    job = read_job(JOB)
    items = read_items(job, arguments.limit)
    model = load_model(job.model, adapter=job.adapter or None)
    steps: list[float] = []
    results: list[float] = []
    shares: list[float] = []
    for _ in range(arguments.repeats):
        for keep, seconds in (("steps", steps), ("results", results)):
            whole, network = run(job, items, model, keep)  # type: ignore[arg-type]
            seconds.append(whole)
            if keep == "steps":
                shares.append(1 - network / whole)
    flat = {
        "rest_share": statistics.median(shares),
        "steps_s": statistics.median(steps),
        "results_s": statistics.median(results),
    }
    flat["journal_speed"] = flat["results_s"] / flat["steps_s"]
    print(f"{len(items)} items, {torch.get_num_threads()} threads, {platform.processor()}")
    print(f"outside the network          {flat['rest_share']:8.1%}")
    print(f"every step recorded          {flat['steps_s']:8.2f} s")
    print(f"results only                 {flat['results_s']:8.2f} s")
    print(f"speed with every step        {flat['journal_speed']:8.1%}")
    if arguments.json:
        print(json.dumps({key: round(value, 4) for key, value in flat.items()}))


if __name__ == "__main__":
    main()
