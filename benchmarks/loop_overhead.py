"""Time per step that a loop adds to a step that does nothing: ours, and its peers.

    python benchmarks/loop_overhead.py [--steps 200000] [--repeats 5] [--json]

The step increments a counter and returns a loss. It is run by a bare `for`, by `Loop`, by `Loop`
with a journal that records every step, by pytorch-ignite's Engine and by Lightning's fit loop
(pip group `bench`; those not installed are left out). All take turns within each repeat, so that a
busy machine slows all alike; medians of the repeats are shown. Wall-clock time is what counts. If
other programs use the cores, also read the CPU time (of all threads, with one for torch): it is
what would pass on free cores.
"""

from __future__ import annotations

import argparse
import gc
import json
import logging
import os
import platform
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from ostinato.journal import Journal
from ostinato.loop import CheckpointSchedule, Edits, Loop, Report, Steps

RARE = CheckpointSchedule(steps=1_000_000)
FEWER = {"lightning": 100, "ignite": 5}
"""Slow peers take this many times fewer steps."""


class Took(NamedTuple):
    """Wall-clock time, and the CPU time of all threads of the process."""

    passed: float
    cpu: float


def now() -> Took:
    """Read both clocks, in seconds."""
    return Took(time.perf_counter(), time.process_time())


def since(start: Took) -> Took:
    """Return the time since a reading of both clocks, in seconds."""
    passed, cpu = now()
    return Took(passed - start.passed, cpu - start.cpu)


class Nothing:
    """A process whose step costs next to nothing."""

    def __init__(self) -> None:
        self.count = 0

    def step(self) -> Report:
        """Count."""
        self.count += 1
        return {"loss": 0.5}

    def state_dict(self) -> dict[str, object]:
        """Return the count."""
        return {"count": self.count}

    def load_state_dict(self, state: dict[str, object]) -> None:
        """Set the count."""
        self.count = int(str(state["count"]))

    def change(self, edits: Edits) -> None:
        """Accept no edits."""


def bare(steps: int) -> Took:
    """Time a bare `for`."""
    advance = Nothing().step
    start = now()
    for _ in range(steps):
        advance()
    return since(start)


def ours(steps: int) -> Took:
    """Time `Loop` without a journal."""
    loop = Loop(Nothing(), until=Steps(steps))
    start = now()
    for _ in loop:
        pass
    return since(start)


def journaled(steps: int) -> Took:
    """Time `Loop` with every step in the journal, until the last one is committed."""
    with tempfile.TemporaryDirectory() as folder, Journal(Path(folder) / "journal.db") as journal:
        loop = Loop(Nothing(), until=Steps(steps), run="nothing", journal=journal, checkpoint=RARE)
        start = now()
        for _ in loop:
            pass
        loop.close()
        return since(start)


def ignite(steps: int) -> Took:
    """Time pytorch-ignite's Engine, with the loss as its output."""
    from ignite.engine import Engine

    process = Nothing()
    engine = Engine(lambda engine, batch: process.step())
    start = now()
    engine.run(range(steps), max_epochs=1)
    return since(start)


def lightning(steps: int) -> Took:
    """Time Lightning's fit loop, with manual optimization and everything optional switched off."""
    import lightning as L
    import torch
    from torch.utils.data import DataLoader

    class Module(L.LightningModule):
        """A module that optimizes nothing."""

        def __init__(self) -> None:
            super().__init__()
            self.automatic_optimization = False
            self.process = Nothing()

        def training_step(self, batch: Any, index: int) -> None:
            self.process.step()

        def configure_optimizers(self) -> None:
            return None

    torch.set_num_threads(1)
    trainer = L.Trainer(
        max_steps=-1,
        max_epochs=1,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    batches: Any = DataLoader(torch.zeros(steps, 1), batch_size=None)  # type: ignore[arg-type]
    start = now()
    trainer.fit(Module(), batches)
    return since(start)


RUNNERS: dict[str, Callable[[int], Took]] = {
    "bare": bare,
    "loop": ours,
    "journal": journaled,
    "ignite": ignite,
    "lightning": lightning,
}
LABELS = {
    "bare": "bare for",
    "loop": "Loop",
    "journal": "Loop with the journal",
    "ignite": "pytorch-ignite Engine",
    "lightning": "Lightning fit loop",
}


def measure(steps: int, repeats: int) -> dict[str, list[Took]]:
    """Return the microseconds per step of each installed runner, for each repeat."""
    times: dict[str, list[Took]] = {}
    for repeat in range(repeats + 1):
        for name, run in RUNNERS.items():
            if repeat > 1 and name not in times:
                continue  # not installed
            count = max(100, steps // FEWER.get(name, 1))
            gc.collect()
            try:
                passed, cpu = run(count)
            except ImportError:
                continue
            if repeat:  # the first warms up
                took = Took(passed / count * 1e6, cpu / count * 1e6)
                times.setdefault(name, []).append(took)
    return times


def report(times: dict[str, list[Took]]) -> dict[str, Took]:
    """Print the table and return the medians."""
    medians = {
        name: Took(*map(statistics.median, zip(*values, strict=True)))
        for name, values in times.items()
    }
    bare = medians["bare"]
    print(f"{'us/step':24}{'passed':>9}{'over bare':>11}{'on CPU':>10}{'over bare':>11}   passed")
    for name, value in medians.items():
        all_passed = [took.passed for took in times[name]]
        print(
            f"{LABELS[name]:24}{value.passed:9.3f}{value.passed - bare.passed:11.3f}"
            f"{value.cpu:10.3f}{value.cpu - bare.cpu:11.3f}"
            f"   {min(all_passed):.3f} to {max(all_passed):.3f}"
        )
    return medians


def main() -> None:
    """Measure, print a table, and with `--json` one JSON object on the last line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0] if __doc__ else None)
    parser.add_argument("--steps", type=int, default=200_000, help="of one measurement")
    parser.add_argument("--repeats", type=int, default=5, help="runs whose median counts")
    parser.add_argument("--json", action="store_true", help="one JSON object on the last line")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    load = os.getloadavg()[0]
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, "
        f"load {load:.1f}, {options.steps} steps, median of {options.repeats}"
    )
    medians = report(measure(options.steps, options.repeats))
    if options.json:
        passed = {f"{name}_us": round(took.passed, 4) for name, took in medians.items()}
        cpu = {f"{name}_cpu_us": round(took.cpu, 4) for name, took in medians.items()}
        print(json.dumps({**passed, **cpu}))


if __name__ == "__main__":
    main()
