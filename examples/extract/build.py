"""Choose the conversations of the extraction job from the Schema-Guided Dialogue data.

    python examples/extract/build.py --data FOLDER

FOLDER holds `dev.jsonl` in the layout that `recipes/sgd.py` describes. Writes `talks.jsonl`,
`cases.jsonl` and `schema.json` beside this file: the same data give the same bytes.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parents[1])]

from recipes.sgd import read_dialogues  # noqa: E402

ITEMS = 160
SERVICES = 8
CASES = 8  # worked examples of a service, from other conversations
LONGEST = 700  # characters of a conversation
FEWEST, MOST = 3, 7  # fields that were said
NO_FACTS = frozenset({"request", "found"})  # how a search or booking went, not what it is about


def is_said(value: str, talk: str) -> bool:
    """Tell whether a value stands in the talk as it is, upper and lower case alike."""
    return re.search(rf"(?<!\w){re.escape(value)}(?!\w)", talk, re.IGNORECASE) is not None


def talk_of(turns: Sequence[Sequence[Any]]) -> str:
    """Return turns as lines of a conversation."""
    names = {"user": "Customer", "assistant": "Desk"}
    return "\n".join(f"{names[turn[0]]}: {turn[1].strip()}" for turn in turns)


def candidate(dialogue: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the row of a dialogue about one service, up to where most was said; None if short."""
    if len(dialogue["services"]) != 1:
        return None
    best = None
    for end in range(2, len(dialogue["turns"]) + 1, 2):
        talk = talk_of(dialogue["turns"][:end])
        if len(talk) > LONGEST:
            break
        facts = dialogue["turns"][end - 1][2]
        record = {k: v for k, v in facts.items() if k not in NO_FACTS and is_said(v, talk)}
        if FEWEST <= len(record) <= MOST and (best is None or len(record) > len(best["record"])):
            best = {"id": dialogue["id"], "service": dialogue["services"][0]}
            best |= {"talk": talk, "record": record}
    return best


def shuffled(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return rows in an order that depends on their ids alone."""
    return sorted(rows, key=lambda row: hashlib.sha256(row["id"].encode()).hexdigest())


def choose(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return rows of the services that have the most, the services in turn."""
    pools: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in shuffled(rows):
        pools[row["service"]].append(row)
    names = sorted(sorted(pools), key=lambda name: -len(pools[name]))[:SERVICES]
    turns = (pools[name][n] for n in range(ITEMS) for name in names if n < len(pools[name]))
    return shuffled([row for _, row in zip(range(ITEMS), turns, strict=False)])


def with_fields(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Add to each row the fields that its service has in any of them."""
    fields: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        fields[row["service"]].update(row["record"])
    return [{**row, "fields": ", ".join(sorted(fields[row["service"]]))} for row in rows]


def cases_of(
    rows: Sequence[Mapping[str, Any]], chosen: Sequence[Mapping[str, Any]]
) -> list[dict[str, str]]:
    """Return worked examples: other conversations of the chosen ones' services, as they are asked.

    `chosen` have their `fields`; a conversation with other fields is left out.
    """
    fields = {row["service"]: row["fields"] for row in chosen}
    taken = {row["id"] for row in chosen}
    counts: dict[str, int] = defaultdict(int)
    cases = []
    for row in shuffled(row for row in rows if row["id"] not in taken):
        service, known = row["service"], fields.get(row["service"], "")
        if counts[service] == CASES or not row["record"].keys() <= set(known.split(", ")):
            continue
        counts[service] += 1
        answer = json.dumps(dict(sorted(row["record"].items())), ensure_ascii=False)
        cases.append({"id": row["id"], "question": asked(row["talk"], known), "answer": answer})
    return cases


def asked(talk: str, fields: str) -> str:
    """Return the question of the job's prompt."""
    return f"{talk}\n\nFields: {fields}. Leave out what was not said."


def schema_of(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the schema of the records: a text for each field of any service, none needed."""
    names = sorted({name for row in rows for name in row["record"]})
    text = {"type": "string", "minLength": 1, "maxLength": 60}
    return {
        "type": "object",
        "properties": {name: text for name in names},
        "additionalProperties": False,
    }


def main() -> None:
    """Write the conversations, the worked examples and the schema."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="the folder of the data")
    dialogues = read_dialogues(parser.parse_args().data / "dev.jsonl")
    candidates = [row for d in dialogues if (row := candidate(d)) is not None]
    rows = with_fields(choose(candidates))
    for name, written in (("talks", rows), ("cases", cases_of(candidates, rows))):
        lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in written]
        (HERE / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")
    text = json.dumps(schema_of(rows), indent=1)
    (HERE / "schema.json").write_text(text + "\n", encoding="utf-8")
    print(f"{len(rows)} conversations of {len({row['service'] for row in rows})} services")


if __name__ == "__main__":
    main()
