"""What an accepted token costs: each strategy on the support job, against full retry.

Full retry (`resample`) is what best-of-n and validate-and-retry libraries do. Computed tokens are
rows through the network after the prompt, those of failed items and discarded rounds included. The
mean log-probability of accepted replies shows whether a lower cost came with worse text.

    python benchmarks/refine_cost.py [--limit N] [--base] [--strategies …] [--json]
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from ostinato.models import LanguageModel, load_model
from ostinato.refine import STRATEGIES
from ostinato.refine.job.config import Job
from ostinato.refine.job.file import read_job
from ostinato.refine.job.items import Item
from ostinato.refine.job.job_items import read_items
from ostinato.refine.job.job_run import refinement

JOB = Path(__file__).parent.parent / "examples" / "support" / "job.toml"


def measure(job: Job, items: Sequence[Item], model: LanguageModel, strategy: str) -> dict[str, Any]:
    """Run the job under one strategy and return its costs, with the rows."""
    job = job.with_changes(strategy=strategy)
    refine = refinement(job, items, job.router(), model, ready=None)
    start = time.perf_counter()
    rows = refine.run()
    seconds = time.perf_counter() - start
    return {**cost(rows), "items_per_s": len(rows) / seconds, "rows": rows}


def cost(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Return computed tokens per accepted one, the accepted share, and the log-probability."""
    accepted = [row for row in rows if row["accepted"]]
    tokens = sum(row["tokens"]["reply"] for row in accepted)
    computed = sum(row["tokens"]["computed"] for row in rows)
    return {
        "tokens_per_accepted": computed / max(1, tokens),
        "accepted": len(accepted) / len(rows),
        "logprob": sum(row["logprob"] for row in accepted) / max(1, tokens),
        "accepted_per_s": len(accepted),
    }


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--limit", type=int, help="take the first N items of the example")
    parser.add_argument("--base", action="store_true", help="also the model without the adapter")
    parser.add_argument(
        "--strategies", nargs="+", default=list(STRATEGIES), choices=list(STRATEGIES)
    )
    parser.add_argument("--rows", type=Path, help="append all result rows to this JSONL file")
    parser.add_argument("--json", action="store_true", help="one JSON object on the last line")
    arguments = parser.parse_args()
    job = read_job(JOB)
    items = read_items(job, arguments.limit)
    print(f"{len(items)} items, {torch.get_num_threads()} threads, {platform.processor()}")
    print(f"{'strategy':20} {'tokens/accepted':>16} {'accepted':>9} {'logprob':>8} {'items/s':>8}")
    flat: dict[str, float] = {}
    for prefix, adapter in (("", job.adapter), ("base.", None)):
        if prefix and not arguments.base:
            continue
        model = load_model(job.model, adapter=adapter or None)
        for strategy in arguments.strategies:
            result = measure(job, items, model, strategy)
            rows = result.pop("rows")
            result["accepted_per_s"] *= result["items_per_s"] / len(items)
            name = prefix + strategy
            print(
                f"{name:20} {result['tokens_per_accepted']:16.3f} {result['accepted']:9.1%} "
                f"{result['logprob']:8.3f} {result['items_per_s']:8.2f}",
                flush=True,
            )
            flat |= {f"{name}.{key}": value for key, value in result.items()}
            if arguments.rows:
                with arguments.rows.open("a") as file:
                    for row in rows:
                        file.write(json.dumps({"strategy": name, **row}) + "\n")
    if arguments.json:
        print(json.dumps({key: round(value, 4) for key, value in flat.items()}))


if __name__ == "__main__":
    main()
