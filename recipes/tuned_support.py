"""The support job before and after its model was tuned by the job's own checks.

    python examples/support/build.py --data FOLDER --tune messages.jsonl
    ostinato tune examples/support/job.toml --input messages.jsonl --out DIR --steps 150
    python -m recipes.tuned_support --data FOLDER --json
    python -m recipes.tuned_support --data FOLDER --adapter DIR --json
    python -m recipes.tuned_support --data FOLDER --costs --json

The model learns from messages of the training part of the data; the job's own are of the
development part. `--model smollm2` starts from the model without the job's adapter, in both. Ready
answers of rules and past cases are left out: the model writes all replies. `--costs` writes no
replies: it tells by how much the bits per character of people's replies must rise where tokens that
the job's check `confidence` refuses become half as likely, and so on.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from ostinato.checks import Confidence
from ostinato.models import LanguageModel, load_model
from ostinato.refine.job.config import Job
from ostinato.refine.job.file import read_job
from ostinato.refine.job.job_items import read_items
from ostinato.refine.job.job_run import refinement
from recipes.cli_args import run
from recipes.measures import bits_per_character, costs_of_confidence
from recipes.sgd import Dialogue, read_dialogues

SHARES = (0.7, 0.5, 0.4, 0.3)
"""Of the probability of tokens that `confidence` refuses, what is left to them."""
JOB = Path(__file__).parents[1] / "examples" / "support" / "job.toml"


def measures(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Return what the job's replies cost; a first draft passes if nothing of it was taken back."""
    accepted = sum(row["tokens"]["reply"] for row in rows if row["accepted"])
    return {
        "items": len(rows),
        "first_drafts": sum(row["outcome"] == "accepted" for row in rows) / len(rows),
        "accepted": sum(row["accepted"] for row in rows) / len(rows),
        "tokens_per_accepted": sum(row["tokens"]["computed"] for row in rows) / max(1, accepted),
    }


def evaluate(options: argparse.Namespace) -> dict[str, object]:
    """Run the job with a model and an adapter, and measure both."""
    job = read_job(JOB).with_changes(model=options.model, adapter=options.adapter)
    items, router = read_items(job, options.limit), job.router()
    items = [item for item in items if router.ready(item.columns) is None]
    rows = refinement(job, items, router, ready=None).run()
    found: dict[str, object] = {"model": job.model, "adapter": job.adapter, **measures(rows)}
    if options.dialogues:
        found["bits_per_character"] = bits_per_character(*_held_out(job, options))
    return found


def costs(options: argparse.Namespace) -> dict[str, object]:
    """Return by what the bits per character are multiplied, for each share that is left."""
    job = read_job(JOB).with_changes(model=options.model, adapter=options.adapter)
    least = next(check.least for check in job.checks if isinstance(check, Confidence))
    assert least is not None
    model, dialogues = _held_out(job, options)
    found = costs_of_confidence(model, dialogues, least, SHARES)
    left = {f"left_{share:g}": cost for share, cost in zip(SHARES, found, strict=True)}
    return {"model": job.model, "adapter": job.adapter, **left}


def _held_out(job: Job, options: argparse.Namespace) -> tuple[LanguageModel, Sequence[Dialogue]]:
    # In float32, so that machines with another compute type measure the same.
    model = load_model(job.model, adapter=job.adapter or None, dtype=torch.float32)
    held_out = list(read_dialogues(options.data / "dev.jsonl"))
    chosen = random.Random(1).sample(held_out, options.dialogues)
    return replace(model, compile=False), chosen


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        prog="python -m recipes.tuned_support",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--data", type=Path, required=True, help="folder of dev.jsonl")
    parser.add_argument("--model", help="a model without the job's adapter")
    parser.add_argument("--adapter", help="name or folder  [default: the job's]")
    parser.add_argument("--limit", type=int, help="the first N items only")
    parser.add_argument("--dialogues", type=int, default=150, help="for bits per character")
    parser.add_argument("--costs", action="store_true", help="what the check confidence costs")
    parser.add_argument("--json", action="store_true", help="one JSON object on the last line")
    options = parser.parse_args()
    found = costs(options) if options.costs else evaluate(options)
    print(", ".join(f"{name} {value}" for name, value in found.items()))
    if options.json:
        print(json.dumps(found))


if __name__ == "__main__":
    run(main)
