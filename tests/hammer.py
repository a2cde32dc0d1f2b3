"""A process that drives a run as fast as it can, and tells on its output what is acknowledged."""

from __future__ import annotations

import sys
from pathlib import Path

from ostinato.journal import Journal
from ostinato.journal.session import RunSession

BIG = 40_000  # bytes of a checkpoint: a kill falls into its writing now and then


def state_at(tick: int) -> dict[str, object]:
    """Return the state that a checkpoint at a tick holds."""
    return {"n": tick, "filling": bytes([tick % 251]) * BIG}


def hammer(path: Path, name: str) -> None:
    """Drive the run for ever; a line `r KEY` or `c TICK` follows what has been committed."""
    run = Journal(path).get(name)
    found = run.load()
    tick = 0 if found is None else found[0].tick
    with RunSession(run) as driver:
        print("d", run.tick, flush=True)
        while True:
            tick += 1
            driver.step(tick, tick, {"loss": 1 / tick})
            if tick % 3 == 0:
                driver.result(f"k{tick}", {"text": f"answer {tick}"})
                driver.flush()
                print("r", f"k{tick}", flush=True)
            if tick % 7 == 0:
                driver.checkpoint(tick, tick, state_at(tick))
                print("c", tick, flush=True)


if __name__ == "__main__":
    hammer(Path(sys.argv[1]), sys.argv[2])
