"""Kills a run with SIGKILL at random moments and compares it to one never stopped."""

from __future__ import annotations

import importlib
import random
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import cast

from ostinato.journal import Journal, Stopped
from ostinato.loop import Loop
from ostinato.testing.children import Forks, Handle, Spawn, spawn
from ostinato.testing.compare import differences

RUN = "run"
LONGEST_OUTPUT = 4000  # characters of a child's output in a message
HALVINGS = 10  # how often the time to a kill is halved where a run ends before it


def check_killed(
    make: str,
    *,
    kills: int = 5,
    seed: int = 0,
    arguments: Mapping[str, str] | None = None,
    timeout: float = 600,
    forks: Forks | None = None,
) -> int:
    """Check that a run killed at random moments ends as an undisturbed one, bit for bit.

    `make` is `"module:function"`; the function takes `run` and `journal` (and `arguments`) and
    returns the `Loop`. It is run in processes of its own, which are killed `kills` times at
    random moments between their first and their last step; where a run ends before, another is
    started. Steps, results, the reason and the last saved state are compared. Returns the number of
    kills. Raises `AssertionError`, also where a process fails unkilled: with its last output.

    Each process is a new interpreter; with `forks` it is forked from one that has imported a
    module and done nothing else, which saves the time of the imports.
    """
    rng = random.Random(seed)
    pairs = [f"{name}={value}" for name, value in (arguments or {}).items()]
    start: Spawn = spawn if forks is None else forks.spawn
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)

        def child(journal: Path) -> _Child:
            output = journal.with_suffix(".output")
            return _Child(start([make, str(journal), *pairs], output), journal, output)

        undisturbed = folder / "undisturbed.db"
        whole = child(undisturbed)
        whole.until_driven()
        began = time.monotonic()
        whole.end(timeout)
        # A kill comes uniformly between 0 and `pause`: on average they divide the run evenly.
        pause = 2 * (time.monotonic() - began) / (kills + 1)
        expected = _all_of(undisturbed)
        done = 0
        for number in range(kills + HALVINGS):
            killed = folder / f"killed-{number}.db"
            again = partial(child, killed)
            now = _kill_often(again, kills - done, partial(_moment, rng, pause))
            child(killed).end(timeout)
            done += now
            if now == 0:  # it ran faster than the undisturbed one
                pause /= 2
            found = differences(expected, _all_of(killed))
            if found:
                shown = "; ".join(found[:3])
                raise AssertionError(
                    f"A run killed {now} times must equal an undisturbed one: {shown}."
                )
            if done >= kills:
                break
        return done


def _moment(rng: random.Random, pause: float) -> float:
    return rng.uniform(0, pause)


def _kill_often(start: Callable[[], _Child], kills: int, pause: Callable[[], float]) -> int:
    """Kill a run up to `kills` times, until it ends; return how often."""
    for done in range(kills):
        if not start().kill_after(pause()):
            return done
    return kills


@dataclass(frozen=True)
class _Child:
    """A process that drives a run; what it prints is in a file beside the journal."""

    process: Handle
    journal: Path
    output: Path

    def end(self, timeout: float) -> None:
        """Wait for its end. Raises `AssertionError` where it failed or did not end."""
        code = self.process.wait(timeout)
        if code is None:
            self._kill()
            raise AssertionError(
                f"The run must end within {timeout:g} seconds.\n{self._last_output()}"
            )
        if code != 0:
            raise AssertionError(
                f"The run must end without an error, got exit code {code}.\n{self._last_output()}"
            )

    def kill_after(self, seconds: float) -> bool:
        """Kill it `seconds` after it drives its run; False where it ended before."""
        self.until_driven()
        if self.process.wait(seconds) is None:
            self._kill()
            return True
        self.end(0)
        return False

    def until_driven(self) -> None:
        """Wait until it drives its run, or has ended."""
        deadline = time.monotonic() + 120
        while self.process.wait(0) is None and not _driven(self.journal):
            if time.monotonic() > deadline:
                break
            time.sleep(0.01)

    def _kill(self) -> None:
        self.process.kill()
        self.process.wait(60)

    def _last_output(self) -> str:
        return self.output.read_text(encoding="utf-8", errors="replace")[-LONGEST_OUTPUT:].strip()


def _driven(path: Path) -> bool:
    if not path.exists():
        return False
    journal = Journal(path)
    try:
        run = journal.find(RUN)
        return run is not None and run.status == "running"
    finally:
        journal.close()


def _all_of(path: Path) -> dict[str, object]:
    journal = Journal(path)
    run = journal.find(RUN)
    assert run is not None, "The run was never started."
    found = run.load()
    state = {} if found is None else dict(found[1])
    result = {
        "status": run.status,
        "stopped": None if run.stopped is None else _without_time(run.stopped),
        "steps": [(step.tick, step.position, step.report) for step in run.steps()],
        "results": sorted(run.results()),
        "process": state.get("process"),
    }
    journal.close()
    return result


def _without_time(stopped: Stopped) -> dict[str, object]:
    return {"kind": stopped.kind.value, "condition": stopped.condition}


def main(make: str, journal: str, *pairs: str) -> None:
    """Run a loop in this process: what `check_killed` starts and kills."""
    module, _, name = make.partition(":")
    build = cast(Callable[..., Loop], getattr(importlib.import_module(module), name))
    arguments = dict(pair.split("=", 1) for pair in pairs)
    build(run=RUN, journal=Journal(journal), **arguments).run()


if __name__ == "__main__":
    main(*sys.argv[1:])
