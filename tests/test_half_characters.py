"""Half a character (a lone surrogate) sets aside the item that has it; the others go on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from tiny import tiny_model

from ostinato.checks import Length
from ostinato.decode import Constraint
from ostinato.errors import InputError, ItemError
from ostinato.loop import Steps
from ostinato.models import Tokenizer
from ostinato.refine import Refine
from ostinato.row_files import read_rows
from ostinato.text import write
from ostinato.train.data import read_rows as read_examples

HALF = "half \ud83d"


def stopped(row: Mapping[str, Any]) -> dict[str, str]:
    found: dict[str, str] = row["stopped"]
    return found


@pytest.mark.parametrize(
    "encode",
    [
        lambda tokenizer: tokenizer.encode(HALF),
        lambda tokenizer: tokenizer.encode_control(HALF),
        lambda tokenizer: tokenizer.chat([{"role": "user", "content": HALF}]),
        lambda tokenizer: tokenizer.chat([{"role": "user", "content": HALF + "<|im_end|>"}]),
    ],
)
def test_a_tokenizer_names_it(encode: Callable[[Tokenizer], Sequence[int]]) -> None:
    with pytest.raises(ItemError, match=r"whole characters, got half of one, \\ud83d\."):
        encode(tiny_model().tokenizer)


@pytest.mark.parametrize(
    ("prompt", "rows"),
    [
        ("{message}", [{"message": "whole"}, {"message": HALF}]),
        (lambda row, edits: row["message"] * 2, [{"message": "whole"}, {"message": HALF}]),
        (lambda row, edits: HALF * row["halves"] or "whole", [{"halves": 0}, {"halves": 1}]),
    ],
)
def test_refine_sets_its_item_aside(prompt: Any, rows: list[dict[str, object]]) -> None:
    checks = [Length(min=1, unit="characters")]
    refine = Refine(tiny_model(), rows, prompt=prompt, checks=checks, max_new_tokens=2)
    whole, half = map(stopped, refine.run())
    assert whole["kind"] != "error" and half["kind"] == "error"
    assert r"got half of one, \ud83d" in half["sentence"]


def test_a_text_that_begins_with_it_is_set_aside() -> None:
    loop = write(["whole", HALF], model=tiny_model(), each=Steps(2), slots=2)
    rows = {one.key: one.to_json() for step in loop for one in step.results}
    assert sorted(stopped(row)["kind"] == "error" for row in rows.values()) == [False, True]


@pytest.mark.parametrize("read", [read_rows, read_examples])
def test_past_cases_and_training_rows_are_refused_by_line(
    read: Callable[[Path], object], tmp_path: Path
) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "x"}\n{"text": "\\ud83d"}\n')
    with pytest.raises(InputError, match=r"a\.jsonl, line 2: .* got half of one, \\ud83d"):
        read(tmp_path / "a.jsonl")


@pytest.mark.parametrize("kind", ["regex", "grammar"])
def test_a_constraint_is_refused(kind: str) -> None:
    with pytest.raises(InputError, match=r"whole characters, got half of one, \\ud83d\."):
        getattr(Constraint, kind)(HALF)
