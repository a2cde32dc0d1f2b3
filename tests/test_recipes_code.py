"""The recipe of code: what is complete, and a prefix verdict that never errs."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path

import pytest
from tiny import save_tiny

from ostinato.loop import PrefixStatus
from ostinato.models import load_model
from ostinato.refine import Backtrack
from recipes.code import (
    PARSES,
    bits_per_character,
    body,
    complete,
    openings,
    pass_rate,
    read_sources,
    split,
    train,
)

FILE = '''
import os


def first(path: str) -> str:
    """Say \\d where
    it is."""
    for name in os.listdir(path):
        try:
            return name + """a
b"""
        except OSError as error:
            names = [n for n in (name,
                                 path)]
            print(f"{names!r} {error}") \\
                if names else None
    @staticmethod
    def inner(): pass
    return "".join(["no",
        "ne"])


def short():
    return 1
'''
ITEM = {"opening": "def first(path: str) -> str:\n"}


def rest() -> str:
    (row,) = openings(FILE)
    return FILE[FILE.index(row["opening"]) + len(row["opening"]) :]


def test_a_prefix_of_python_is_never_called_impossible() -> None:
    text = rest()
    (row,) = openings(FILE)
    for end in range(len(text) + 1):
        assert PARSES.check_prefix(text[:end], row).status is PrefixStatus.POSSIBLE, text[:end]
    assert PARSES.judge(text, row).passed


@pytest.mark.parametrize(
    "broken",
    ["    x = (1]\n", "x = 1\n", "    x = 'abc\n", "    return a b\n", "    if x:\n    y\n"],
)
def test_what_no_further_line_can_fix_is_impossible(broken: str) -> None:
    seen = PARSES.check_prefix("    y = 2\n" + broken if broken[0] == " " else broken, ITEM)
    assert seen.status is PrefixStatus.IMPOSSIBLE and seen.message
    assert PARSES.check_prefix(broken.rstrip("\n"), ITEM).status is PrefixStatus.POSSIBLE
    assert not PARSES.judge("    y = 2\n" + broken if broken[0] == " " else broken, ITEM).passed


def test_a_completion_ends_before_a_line_that_is_not_indented() -> None:
    opening = ITEM["opening"]
    assert body("    a\n\n    b\nx = 1\n    c", opening) == "    a\n\n    b\n"
    assert body("    a\n    cut of", opening) == "    a\n"


def test_every_twentieth_file_is_held_out_and_tests_are_left_out(tmp_path: Path) -> None:
    for number in range(40):
        (tmp_path / f"m{number:02}.py").write_text(f"x = {number}\n")
    for name in ("test", "json"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.py").write_text(f"# {name}\n")
    texts = read_sources(tmp_path)
    learned, held = split(texts)
    assert len(held) == 2 and sorted(learned + held) == sorted(texts)
    assert "# json\n" in texts and "# test\n" not in texts


def test_a_completion_under_the_check_is_python(tmp_path: Path) -> None:
    model = load_model(save_tiny(tmp_path / "tiny"))
    rows = [{"opening": "def f(x):\n", "prompt": "def f(x):\n"}]
    made = complete(model, rows, Backtrack(rounds=2))
    assert pass_rate(made) == float(PARSES.judge(str(made[0]["reply"]), rows[0]).passed)
    assert bits_per_character(model, [textwrap.dedent(FILE)]) > 0


@pytest.mark.slow
def test_the_recipe_trains_on_a_folder(tmp_path: Path) -> None:
    folder = tmp_path / "library"
    folder.mkdir()
    for number in range(40):
        (folder / f"m{number:02}.py").write_text(FILE * 3 + f"x = {number}\n")
    train(folder, tmp_path / "out", 2)
    rows = (tmp_path / "out" / "held.jsonl").read_text().splitlines()
    assert len(rows) == 2 and "x = 19" in json.loads(rows[0])["text"]
    assert load_model(str(tmp_path / "out" / "model")).llama().config.hidden_size == 192
