"""A number of things is told in the singular or the plural, everywhere by one helper."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import ostinato
from ostinato.arguments import counted, were
from ostinato.loop import Budget, Epochs, Loop, Steps

ROOT = Path(ostinato.__file__).parent


@pytest.mark.parametrize(
    ("number", "units", "spec", "told"),
    [
        (1, "items", "", "1 item"),
        (0, "items", "", "0 items"),
        (2, "replies", "", "2 replies"),
        (1, "replies", "", "1 reply"),
        (1, "batches", "", "1 batch"),
        (1, "more times", "", "1 more time"),
        (1.0, "epochs", "g", "1 epoch"),
        (1, "cost", "g", "1 cost"),
        (0.5, "epochs", "g", "0.5 epochs"),
        (12345, "tokens", ",", "12,345 tokens"),
    ],
)
def test_a_number_and_its_unit(number: float, units: str, spec: str, told: str) -> None:
    assert counted(number, units, spec) == told
    assert were(number) == ("was" if number == 1 else "were")


def test_a_loop_of_one_step_says_so() -> None:
    assert Loop(dict, until=Steps(1)).run().sentence == "It has taken 1 step, the limit."
    once = Loop(lambda: {"epoch": 1.0}, until=Epochs(1) | Budget("tokens", 9))
    assert once.run().sentence == "It has completed 1 epoch, the limit."


def test_no_module_makes_plurals_of_its_own() -> None:
    own = re.compile(r"""['"]s['"] \* |['"]s['"] if |['"]['"] if .* == 1 else ['"]s['"]""")
    for path in ROOT.rglob("*.py"):
        assert not own.search(path.read_text("utf-8")), path
