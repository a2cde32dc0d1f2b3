"""Choose the turns of the example from the Schema-Guided Dialogue data.

    python examples/adversarial_checks/build.py --data FOLDER

FOLDER holds `dev.jsonl` in the layout that `recipes/sgd.py` describes. Writes `loop.jsonl`, and
`judge.jsonl` with drafts of the model, beside this file: the same data and the same kind of
processor give the same bytes.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parents[1])]

from examples.support.build import prompt_tokens  # noqa: E402
from ostinato.decode import SamplingParams  # noqa: E402
from ostinato.loop import Steps  # noqa: E402
from ostinato.models import load_model  # noqa: E402
from ostinato.text import write  # noqa: E402
from recipes.cli_args import run  # noqa: E402
from recipes.sgd import dialogue_messages, read_dialogues  # noqa: E402

SUPPORT = HERE.parent / "support" / "messages.jsonl"
LOOP, JUDGE = 256, 400
LONGEST_PROMPT = 260  # tokens, estimated: short prompts are quick
LONGEST_REPLY = 80  # tokens
Row = dict[str, Any]


def turns(dialogue: Mapping[str, Any]) -> Iterator[Row]:
    """Yield the assistant's turns with tidy replies: a capital first, a full stop last."""
    for index in range(1, len(dialogue["turns"]), 2):
        reference = dialogue["turns"][index][1].strip()
        messages = dialogue_messages(dialogue, upto=index)
        tidy = re.fullmatch(r"[\"'$+]?[A-Z0-9].*[.!?]", reference, re.DOTALL)
        if tidy and prompt_tokens(messages) <= LONGEST_PROMPT:
            row = {"id": f"{dialogue['id']}-{index // 2}", "messages": messages}
            yield {**row, "reference": reference}


def choose(dialogues: Sequence[Mapping[str, Any]], used: set[str], count: int) -> list[Row]:
    """Return one turn of each of `count` dialogues that are not `used`, in an order of hashes."""
    rows: list[Row] = []
    for dialogue in sorted(dialogues, key=lambda one: _order(one["id"])):
        found = sorted(turns(dialogue), key=lambda row: _order(row["id"]))
        if dialogue["id"] not in used and found:
            rows.append(found[0])
    if len(rows) < count:
        raise SystemExit(f"too few dialogues: {len(rows)} of {count} were found.")
    return rows[:count]


def _order(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()


def with_drafts(rows: Sequence[Row], seed: int = 1) -> list[Row]:
    """Return rows with the conversation's end and a draft of the model, as the judge reads them."""
    loop = write(
        [row["messages"] for row in rows],
        model=load_model("smollm2", adapter="support"),
        each=Steps(LONGEST_REPLY),
        sampling=SamplingParams(temperature=0.8),
        seed=seed,
    )
    drafts = {one.index: str(one.output).strip() for step in loop for one in step.results}
    return [
        {
            "id": row["id"],
            "message": [m["content"] for m in row["messages"] if m["role"] == "user"][-1],
            "reference": row["reference"],
            "draft": drafts[index],
        }
        for index, row in enumerate(rows)
    ]


def _write(name: str, rows: Sequence[Row]) -> None:
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
    (HERE / name).write_text("".join(lines), encoding="utf-8")


def main() -> None:
    """Write the two files."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of dev.jsonl")
    data = parser.parse_args().data
    messages = SUPPORT.read_text(encoding="utf-8").splitlines()
    tested = {json.loads(line)["id"].rsplit("-", 1)[0] for line in messages}
    rows = choose(list(read_dialogues(data / "dev.jsonl")), tested, LOOP + JUDGE)
    _write("loop.jsonl", rows[:LOOP])
    _write("judge.jsonl", with_drafts(rows[LOOP:]))


if __name__ == "__main__":
    run(main)
