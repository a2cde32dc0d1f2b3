"""Tokens per second of a backend alone, logits included: 1 to 64 rows, and prompts.

python benchmarks/decode_block.py [--model smollm2] [--threads N] [--compile | --bits 8|4] [--json]

Set OSTINATO_MARCH=x86-64-v3 to measure compiled code with AVX2 only.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable

import torch

from ostinato.inference import Backend, CompiledBackend, FixedShapeBackend
from ostinato.models import LanguageModel, load_model

POSITION = 200  # a prompt and half a reply
REPEATS = 7
CASES = ((16, 1), (16, 16), (64, 64))  # (block, rows)


def seconds(work: Callable[[], object]) -> float:
    """Return the median seconds of `work`, after one warm-up call."""
    work()
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def measure(model: LanguageModel, options: argparse.Namespace) -> dict[str, float]:
    """Return tokens per second for each case; compiled code has no blocks of rows."""
    speeds = {}
    tokens = [(7 * i) % model.config.vocab_size for i in range(POSITION)]
    for block, rows in CASES:
        inference: Backend = (
            CompiledBackend(model.llama(), rows, bits=options.bits)
            if options.compile or options.bits
            else FixedShapeBackend(model, rows, block=block)
        )
        speeds["prompt"] = 192 / seconds(lambda run=inference: run.prefill(0, tokens[:192]))  # type: ignore[misc]
        inference.prefill(0, tokens)
        for slot in range(1, rows):
            inference.copy(0, slot, POSITION)
        batch = [(slot, 5, POSITION) for slot in range(rows)]
        took = seconds(lambda run=inference, batch=batch: run.logits(run.feed(batch)))  # type: ignore[misc]
        speeds[f"block_{block}.rows_{rows}"] = rows / took
    return speeds


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="smollm2", help="an installed model or a folder")
    parser.add_argument(
        "--threads", type=int, default=torch.get_num_threads(), help="threads of torch"
    )
    parser.add_argument("--compile", action="store_true", help="the compiled pass")
    parser.add_argument("--bits", type=int, choices=(8, 4), help="the compiled pass in 8 or 4 bits")
    parser.add_argument("--json", action="store_true", help="one JSON object on the last line")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    model = load_model(options.model)
    speeds = measure(model, options)
    dtype = str(next(model.network.parameters()).dtype).removeprefix("torch.")
    print(f"{options.model}, {dtype}, {options.threads} threads, {platform.machine()}, ", end="")
    print(f"position {POSITION}; tokens per second, median of {REPEATS}:")
    for name, speed in speeds.items():
        print(f"  {name:20} {speed:8.1f}")
    if options.json:
        print(json.dumps({name: round(speed, 2) for name, speed in speeds.items()}))


if __name__ == "__main__":
    main()
