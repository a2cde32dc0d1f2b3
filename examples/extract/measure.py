"""How well the facts are extracted: exact records, exact fields, valid JSON, tokens; by strategy.

A second line for each way tells what became of the wanted fields, by kind.

    python examples/extract/measure.py [--limit N] [--compile] [--ways …] [--rows FILE]
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ostinato.models import load_model
from ostinato.refine import Backtrack, Constrain, Resample
from ostinato.refine.job.config import Job
from ostinato.refine.job.file import read_job
from ostinato.refine.job.job_items import read_items
from ostinato.refine.job.job_run import refinement

HERE = Path(__file__).resolve().parent
Record = Mapping[str, object]

WAYS: dict[str, Callable[[Job], Job]] = {
    "one draft": lambda job: replace(job, strategy=Resample(rounds=1)),
    "resample": lambda job: replace(job, strategy=Resample(rounds=8)),
    "backtrack": lambda job: replace(job, strategy=Backtrack(rounds=8)),
    "schema only": lambda job: replace(job, checks=job.checks[:1], strategy=Constrain(rounds=1)),
    "constrain": lambda job: job,
}


KINDS: Mapping[str, str] = {
    "dates and times": "date time",
    "money": "price fare rent",
    "counts": "baths beds seats stops bags passengers transfers travelers",
    "yes or no": "entry furnished kids outdoors options allowed",
    "sorts": "category class genre range rating subcategory language type",
    "places": "address area city event location station",
    "phone numbers": "number",
    "names": "actors airlines director name",
}
"""Kinds of fields, by the last word of their names."""


def kind_of(field: str) -> str:
    """Return the kind of a field: by its last words, as `city_of_event` is a place."""
    last = field.split("_")[-1]
    return next(kind for kind, words in KINDS.items() if last in words.split())


def by_kind(wanted: Sequence[Record], found: Sequence[Record]) -> dict[str, tuple[int, int, int]]:
    """Return for each kind how many wanted fields were right, wrong and left out."""
    counts = {kind: [0, 0, 0] for kind in KINDS}
    for one, other in zip(wanted, found, strict=True):
        for name, value in one.items():
            fate = 2 if name not in other else int(not same(value, other[name]))
            counts[kind_of(name)][fate] += 1
    return {kind: (right, wrong, out) for kind, (right, wrong, out) in counts.items()}


def record_of(text: str) -> Record | None:
    """Return the JSON object that a text is, or None."""
    try:
        value = json.loads(text)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def same(one: object, other: object) -> bool:
    """Tell whether two values are the same text, case and white space aside."""
    return " ".join(str(one).casefold().split()) == " ".join(str(other).casefold().split())


def exact(wanted: Record, found: Record) -> int:
    """Return how many wanted fields were found with their values."""
    return sum(name in found and same(value, found[name]) for name, value in wanted.items())


def measures(wanted: Sequence[Record], rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Return shares of records and fields, and the tokens computed for each accepted one."""
    found = [record_of(str(row["reply"])) for row in rows]
    pairs = [(one, other or {}) for one, other in zip(wanted, found, strict=True)]
    right = sum(exact(one, other) for one, other in pairs)
    accepted = sum(row["tokens"]["reply"] for row in rows if row["accepted"])
    return {
        "records": sum(len(a) == len(b) == exact(a, b) for a, b in pairs) / len(pairs),
        "wanted_right": sum(len(a) == exact(a, b) for a, b in pairs) / len(pairs),
        "fields": right / sum(len(one) for one, _ in pairs),
        "precision": right / max(1, sum(len(other) for _, other in pairs)),
        "json": sum(one is not None for one in found) / len(found),
        "accepted": sum(bool(row["accepted"]) for row in rows) / len(rows),
        "tokens": sum(row["tokens"]["computed"] for row in rows) / max(1, accepted),
    }


def main() -> None:
    """Run the job in each way, and print a line for it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--limit", type=int, help="take the first N conversations")
    parser.add_argument("--adapter", help="an adapter for the model")
    parser.add_argument("--compile", action="store_true", help="the compiled pass")
    parser.add_argument("--examples", type=int, help="worked examples in the prompt (job: 3)")
    parser.add_argument("--ways", nargs="+", default=list(WAYS), choices=list(WAYS))
    parser.add_argument("--rows", type=Path, help="write all result rows there, as JSON lines")
    arguments = parser.parse_args()
    job = read_job(HERE / "job.toml")
    items = read_items(job, arguments.limit)
    wanted: list[Any] = [item.columns["record"] for item in items]
    if arguments.examples is not None and job.cases is not None:
        job = replace(job, cases=replace(job.cases, examples=arguments.examples))
    model = load_model(job.model, adapter=arguments.adapter, compile=arguments.compile)
    for way in arguments.ways:
        run = refinement(WAYS[way](job), items, job.router(), model, ready=None)
        rows = run.run()
        told = measures(wanted, rows)
        print(f"{way:12}", *(f"{name} {value:.3f}" for name, value in told.items()))
        kinds = by_kind(wanted, [record_of(str(row["reply"])) or {} for row in rows])
        print("  right, wrong, out:", *(f"{kind} {n}" for kind, n in kinds.items()), flush=True)
        if arguments.rows:
            with arguments.rows.open("a") as file:
                file.writelines(json.dumps({"way": way, **row}) + "\n" for row in rows)


if __name__ == "__main__":
    main()
