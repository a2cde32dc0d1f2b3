"""New weights in a backend's place, against building a backend anew: milliseconds.

    python -m benchmarks.refresh [--model smollm2] [--rank 16] [--isa avx2] [--json]

A model learns by an adapter, on a frozen base in bfloat16 or float32. `update` is what a backend
takes to compute with the present weights (`Backend.update`); `rebuild` is what it takes without:
copy the network, merge the adapter, open a backend. Both give the same bits, which is checked.
"""

from __future__ import annotations

import argparse
import copy
import gc
import json
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import replace

import torch

from benchmarks.isa import add_isa, hold_to
from ostinato.inference import Backend, open_backend
from ostinato.models import LanguageModel, add_lora, load_model, lora_layers, merge

SLOTS = 16
PROMPT = list(range(3, 60))


def learn(model: LanguageModel, seed: int) -> None:
    """Change the whole adapter, as a step of a training does."""
    drawn = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for _, layer in lora_layers(model.network):
            layer.lora_A.weight.normal_(0, 0.05, generator=drawn)
            layer.lora_B.weight.normal_(0, 0.05, generator=drawn)


def rebuilt(model: LanguageModel) -> Backend:
    """Open a backend of a merged copy."""
    merged = merge(copy.deepcopy(model.llama()))
    return open_backend(replace(model, network=merged), SLOTS)


def milliseconds(work: Callable[[], object]) -> float:
    """Return how long a call takes."""
    start = time.perf_counter()
    work()
    return (time.perf_counter() - start) * 1e3


def logits(backend: Backend) -> torch.Tensor:
    """Return the logits after a prompt."""
    backend.prefill(0, PROMPT)
    return backend.logits(backend.feed([(0, 5, len(PROMPT))]))


def measure(model: LanguageModel, repeats: int) -> dict[str, object]:
    """Return the medians of updates and rebuilds in turns, after a first of each."""
    backend = open_backend(model, SLOTS)
    updates, rebuilds = [], []
    for repeat in range(repeats + 1):
        learn(model, repeat)
        updates.append(milliseconds(backend.update))
        gc.collect()
        rebuilds.append(milliseconds(lambda: rebuilt(model)))
    assert torch.equal(logits(backend), logits(rebuilt(model))), "update gave other bits"
    update, rebuild = statistics.median(updates[1:]), statistics.median(rebuilds[1:])
    nothing = statistics.median(milliseconds(backend.update) for _ in range(repeats))
    return {
        "mode": backend.compute_mode,
        "update_ms": round(update, 1),
        "rebuild_ms": round(rebuild, 1),
        "ratio": round(update / rebuild, 3),
        "nothing_ms": round(nothing, 1),
    }


def cases(options: argparse.Namespace) -> dict[str, LanguageModel]:
    """Return the models to measure: by the base's type, in the fastest mode and in the plain one.

    The first is the one that a training on this machine uses by default.
    """
    found = {}
    for dtype in (torch.bfloat16, torch.float32):
        model = load_model(options.model, dtype=dtype)
        add_lora(model.llama(), options.rank)
        name = str(dtype).removeprefix("torch.")
        found[name] = model
        found[f"{name}.plain"] = replace(model, compile=False)
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.refresh",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--model", default="smollm2", help="an installed model or a folder")
    parser.add_argument("--rank", type=int, default=16, help="of the adapter")
    parser.add_argument("--repeats", type=int, default=7, help="runs whose median counts")
    add_isa(parser)
    parser.add_argument("--json", action="store_true", help="one JSON object on the last line")
    options = parser.parse_args()
    hold_to(options.isa, "refresh")
    threads = torch.get_num_threads()
    print(f"{options.model}, LoRA {options.rank}, {threads} threads, {platform.machine()}:")
    flat: dict[str, object] = {"isa": options.isa}
    for name, model in cases(options).items():
        found = measure(model, options.repeats)
        print(
            f"  {name:15} update {found['update_ms']:7} ms  rebuild {found['rebuild_ms']:7} ms  "
            f"ratio {found['ratio']}  nothing new {found['nothing_ms']} ms  ({found['mode']})",
            flush=True,
        )
        keys = {f"{name}.{key}": value for key, value in found.items()}
        flat |= found | keys if name == "bfloat16" else keys
    if options.json:
        print(json.dumps(flat))


if __name__ == "__main__":
    main()
