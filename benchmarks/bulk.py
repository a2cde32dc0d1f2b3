"""A job over many items whose replies come from a rule: time, memory, restart, report.

    python -m benchmarks.bulk [--items 100000] [--repeats 1] [--beside] [--json]

Each figure is of the real command, `ostinato refine`, in a process of its own. `seconds`, `cpu_s`
(its processor time, which other programs change less) and `peak_mb` (the most memory that it held)
are of the whole job. `restart_s` is how long the same command takes to say that nothing is left to
do, `report_mb` the size of the report page. Then the same for a tenth of the items, with their
number before the name. `--beside` runs a program beside it that keeps one processor busy.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

JOB = """\
model = "smollm2"
input = "messages.jsonl"
id = "id"

[prompt]
template = "You work for a parcel service. Answer this customer: {message}"

[[rule]]
name = "parcel"
column = "message"
pattern = "parcel"
reply = "Dear {name}, your parcel is on its way. It will arrive soon. Best regards, the team"

[[check]]
kind = "length"
max = 60

[[check]]
kind = "contains"
texts = ["parcel"]
"""

CHILD = """
import json, resource, subprocess, sys, time
start = time.monotonic()
done = subprocess.run(sys.argv[1:], capture_output=True, text=True)
seconds = time.monotonic() - start
used = resource.getrusage(resource.RUSAGE_CHILDREN)
told = {"code": done.returncode, "out": done.stdout, "err": done.stderr[-2000:]}
print(json.dumps({"seconds": seconds, "peak_mb": used.ru_maxrss / 1024,
                  "cpu_s": used.ru_utime + used.ru_stime, **told}))
"""


def write_job(folder: Path, items: int) -> None:
    """Write a job and its messages."""
    (folder / "job.toml").write_text(JOB, "utf-8")
    with (folder / "messages.jsonl").open("w", encoding="utf-8") as file:
        for number in range(items):
            message = (
                f"My parcel number {number} has not arrived yet, and I ordered it {number % 30} "
                f"days ago. When will it come? Regards, customer {number * 7919 % 100_003}"
            )
            row = {"id": f"m{number:08}", "message": message, "name": f"Customer {number % 977}"}
            file.write(json.dumps(row) + "\n")


def refine(folder: Path) -> dict[str, float | str]:
    """Run the command once; return its seconds, its peak of memory, and what it printed."""
    command = [sys.executable, "-m", "ostinato", "refine", "job.toml"]
    # In a process between: what it has waited for is this command alone.
    child = [sys.executable, "-c", CHILD, *command]
    done = json.loads(subprocess.run(child, cwd=folder, capture_output=True, check=True).stdout)
    if done["code"]:
        raise SystemExit(f"The command must end with 0, got {done['code']}: {done['err']}")
    return dict(done)


def measure(items: int) -> dict[str, float]:
    """Return the figures of one job."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_job(folder, items)
        first, again = refine(folder), refine(folder)
        if "nothing was left to do" not in str(again["out"]):
            raise SystemExit(f"The job must be finished, got: {again['out']}")
        report = (folder / "job.replies.report.html").stat().st_size
        return {
            "items": items,
            "seconds": float(first["seconds"]),
            "cpu_s": float(first["cpu_s"]),
            "peak_mb": float(first["peak_mb"]),
            "restart_s": float(again["seconds"]),
            "report_mb": report / 1e6,
        }


@contextmanager
def another_program() -> Iterator[None]:
    """Keep one processor busy meanwhile."""
    other = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        yield
    finally:
        other.kill()
        other.wait()


def medians(items: int, repeats: int) -> dict[str, float]:
    """Return the medians of some jobs."""
    each = [measure(items) for _ in range(repeats)]
    return {name: round(statistics.median(one[name] for one in each), 3) for name in each[0]}


def main() -> None:
    """Measure, and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--beside", action="store_true")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    began = time.monotonic()
    fewer = options.items // 10

    def both() -> dict[str, float]:
        small = medians(fewer, options.repeats)
        named = {f"{fewer}.{name}": value for name, value in small.items()}
        return {**medians(options.items, options.repeats), **named}

    if options.beside:
        with another_program():
            figures = both()
    else:
        figures = both()
    if options.json:
        print(json.dumps(figures))
        return
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores")
    for name, value in figures.items():
        print(f"  {name:<20}{value:>12,.2f}")
    print(f"Measured in {time.monotonic() - began:.0f} s.")


if __name__ == "__main__":
    main()
